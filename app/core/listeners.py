"""Registry of event listeners: importing this registers them."""

from app.core.modules import parts
from app.core.services import events

LISTENERS = [events, *parts("listeners")]
