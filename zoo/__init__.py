"""What a Simulator is, and the pretrained ones."""

from zoo.files import ModelFileError
from zoo.loading import load, load_policy
from zoo.policy import Policy
from zoo.registration import register_environments
from zoo.simulator import Simulator
from zoo.tasks import TASKS, Task, get_task, register_task

__all__ = [
    "TASKS",
    "ModelFileError",
    "Policy",
    "Simulator",
    "Task",
    "get_task",
    "load",
    "load_policy",
    "register_environments",
    "register_task",
]

register_environments()
