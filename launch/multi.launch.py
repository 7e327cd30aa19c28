"""Several cameras, one node each, in one launch.

ros2 launch flow3r_ros multi.launch.py cameras:=front,rear base_frame:=base_link

The node of camera `front` lives in the namespace /front, listens to /front/image_raw and
/front/camera_info and publishes /front/flow3r/odometry and the rest. A frame has one parent in tf,
so one camera gives odom -> base_frame (`tf_from`, the first by default); the odometry of each other
one is in a frame of its own, `rear/odom`, for a filter. Robots of their own, each with its own tf:
include robot.launch.py once for each, with `namespace`, `tf:=tf` and `tf_static:=tf_static`.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch.substitutions import LaunchConfiguration

from flow3r_ros.ros import launching

ARGUMENTS = {
    "cameras": ("front,rear", "names of the cameras, which are their namespaces"),
    "image": ("image_raw", "image topic of each camera, below its namespace"),
    "camera_info": ("camera_info", "CameraInfo topic of each camera, below its namespace"),
    "tf_from": ("", "camera whose node publishes the tf edge; the first one when not given"),
}
PER_CAMERA = ("image", "camera_info")


def generate_launch_description() -> LaunchDescription:
    """A node for each camera."""
    return LaunchDescription(
        [
            *launching.node_arguments(leave_out=PER_CAMERA),
            *launching.declare(ARGUMENTS),
            OpaqueFunction(function=_nodes),
        ]
    )


def _nodes(context: LaunchContext) -> list:
    values = {
        name: LaunchConfiguration(name).perform(context)
        for name in (*ARGUMENTS, "namespace", "odom_frame")
    }
    cameras = [name.strip() for name in values["cameras"].split(",") if name.strip()]
    leader = values["tf_from"] or cameras[0]
    if leader not in cameras or len(set(cameras)) < len(cameras):
        return [launching.failure(f"cameras:={values['cameras']} tf_from:={leader}: one of them")]
    odom = values["odom_frame"]
    nodes = []
    for camera in cameras:
        frame = odom if camera == leader else f"{camera}/{odom or 'odom'}"
        follows = {"node.publish_tf": False} if camera != leader else {}
        namespace = f"{values['namespace']}/{camera}".lstrip("/")
        nodes.append(launching.node(context, follows, namespace=namespace, odom_frame=frame))
    return nodes
