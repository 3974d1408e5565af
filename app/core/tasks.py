"""Every task of the service: importing this registers them."""

from app.core.modules import parts
from app.core.services import mail, queue

TASKS = [queue, mail, *parts("tasks")]
