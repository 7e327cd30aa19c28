"""The settings rendered for people: docs/parameters.md and config/node.yaml come from the
descriptions in `config.py`.

`python -m flow3r_ros.cli.settings_docs` rewrites both; a test keeps them equal to what the code
says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from flow3r_ros.config import Config, is_runtime, walk
from flow3r_ros.setting_checks import AT_MOST, BELOW

ROOT = Path(__file__).resolve().parents[2]


def allowed(field: FieldInfo) -> str:
    """The range or the choices of a field in words; empty when anything of its type goes."""
    arguments = getattr(field.annotation, "__args__", None)
    if arguments:
        return ", ".join(str(choice) for choice in arguments)
    words = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {getattr(rule, key)}"
        for rule in field.metadata
        for key, sign in words.items()
        if hasattr(rule, key)
    ]
    patterns = [f"`{rule.pattern}`" for rule in field.metadata if getattr(rule, "pattern", None)]
    return ", ".join(bounds + patterns)


def orders() -> str:
    """Which settings lie in which order, in words."""
    less = [f"`{low}` is less than `{high}`" for low, high in BELOW]
    return ", ".join(less + [f"`{low}` is at most `{high}`" for low, high in AT_MOST])


def render_markdown() -> str:
    """The table of docs/parameters.md."""
    lines = [
        "# Parameters",
        "",
        "Rendered from `flow3r_ros/config.py` by `python -m "
        "flow3r_ros.cli.settings_docs`; do not edit by hand. The same names are YAML keys",
        "(`engine: {window: 4}`), ROS parameters (`engine.window`) and what `--config "
        "FILE` of every command reads.",
        "Parameters marked *live* may change while the node runs, the others until it is "
        "configured.",
        "",
        f"Settings that contradict each other are refused with both names and the cure, at the "
        f"start and when they are set: {orders()}; frames of tf have different names.",
    ]
    last = ""
    for group, name, field in walk():
        if group != last:
            doc = (Config.model_fields[group].annotation.__doc__ or "").strip()
            lines += [
                "",
                f"## `{group}`: {doc[:1].lower()}{doc[1:]}",
                "",
                "| parameter | default | allowed | live | meaning |",
                "|---|---|---|---|---|",
            ]
            last = group
        default = '""' if field.default == "" else field.default
        lines.append(
            f"| `{group}.{name}` | `{default}` | {allowed(field)} | "
            f"{'yes' if is_runtime(field) else ''} | {field.description} |"
        )
    return "\n".join(lines) + "\n"


def render_yaml() -> str:
    """The ROS parameter file of documented defaults, config/node.yaml."""
    lines = [
        "# Defaults of the flow3r node, rendered from flow3r_ros/config.py by `python "
        "-m flow3r_ros.cli.settings_docs`.",
        "/**:",
        "  ros__parameters:",
        "    # configure and activate by itself at start",
        "    autostart: true",
    ]
    last = ""
    for group, name, field in walk():
        if group != last:
            lines.append(f"    {group}:")
            last = group
        lines += [f"      # {field.description}", f"      {name}: {_scalar(field.default)}"]
    return "\n".join(lines) + "\n"


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return repr(value)


def main() -> None:
    """Rewrite both files."""
    (ROOT / "docs" / "parameters.md").write_text(render_markdown(), encoding="utf-8")
    (ROOT / "config" / "node.yaml").write_text(render_yaml(), encoding="utf-8")


if __name__ == "__main__":
    main()
