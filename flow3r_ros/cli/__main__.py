"""`python -m flow3r_ros.cli`."""

from flow3r_ros.cli.main import main

if __name__ == "__main__":
    main()
