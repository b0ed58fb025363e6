"""What a Simulator is, and the pretrained ones."""

from zoo.files import ModelFileError
from zoo.policy import Policy
from zoo.simulator import Simulator
from zoo.tasks import TASKS, Task, get_task

__all__ = ["TASKS", "ModelFileError", "Policy", "Simulator", "Task", "get_task"]
