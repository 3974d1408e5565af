"""What many modules cost at the start; `python -m benchmarks.modules 7` measures seven times and prints JSON.

Two copies of the application, with two and with thirty small modules beside its own. The time is CPU time of
`import app.main`, which makes the application, without what the small modules' own files take.
"""

import compileall
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FEW, MANY = 2, 30

FILES = {
    "module.toml": 'depends_on = ["app.auth"]\n',
    "__init__.py": '"""Measured."""\n\nfrom app.{name}.routers import router_v1\n\n__all__ = ["router_v1"]\n',
    "events.py": """
from app.core.services.events import BaseEvent


class {title}Placed(BaseEvent):
    item_id: int
""",
    "models.py": """
from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import BaseModel


class {title}(BaseModel):
    __tablename__ = "{name}_items"
    number: Mapped[str] = mapped_column(String(20))
""",
    "schemas.py": """
from pydantic import BaseModel


class {title}DTO(BaseModel):
    id: int
    number: str
""",
    "repositories.py": """
from app.core.db import BaseRepository
from app.{name}.models import {title}


class {title}Repository(BaseRepository[{title}]):
    model = {title}
""",
    "routers.py": """
from fastapi import APIRouter

from app.auth import ActiveUser
from app.core.api import Response
from app.core.deps import DBSession
from app.{name}.repositories import {title}Repository
from app.{name}.schemas import {title}DTO

router_v1 = APIRouter(prefix="/{name}", tags=["{name}"])


@router_v1.get("/{{item_id}}")
async def get_item(item_id: int, db: DBSession, user: ActiveUser) -> Response[{title}DTO]:
    return Response(data=await {title}Repository().get(db=db, id=item_id))


@router_v1.delete("/{{item_id}}", status_code=204)
async def delete_item(item_id: int, db: DBSession, user: ActiveUser) -> None:
    await {title}Repository().delete(db=db, model_id=item_id)
""",
    "tasks.py": """
from app.core.deps import queued
from app.core.services.queue import BaseTask


@queued
class Count{title}(BaseTask):
    __task_name__ = "{name}.count"

    async def run(self, item_id: int) -> None: ...
""",
    "listeners.py": """
from app.core.deps import listener
from app.core.services.events import ListenedEvent
from app.{name}.events import {title}Placed


@listener({title}Placed)
async def count(event: ListenedEvent[{title}Placed]) -> None: ...
""",
}

START = """
import sys, time
from importlib.machinery import SourceFileLoader

spent, is_own, since = {True: 0.0, False: 0.0}, False, time.process_time()


def switch(to):
    global is_own, since
    now = time.process_time()
    spent[is_own] += now - since
    is_own, since = to, now


def run(self, module, run=SourceFileLoader.exec_module):
    before = is_own
    switch(module.__name__.startswith("app.measured_"))
    try:
        run(self, module)
    finally:
        switch(before)


SourceFileLoader.exec_module = run
import app.main
from app.core import listeners, models, tasks
switch(False)
assert sum(name.count(".") == 1 for name in sys.modules if name.startswith("app.measured_")) == int(sys.argv[1])
print(spent[False], spent[True])
"""


def copy_with(modules: int, folder: Path) -> Path:
    """A copy of the application with so many small modules beside its own."""
    shutil.copytree(ROOT / "app", folder / "app")
    for number in range(modules):
        name = f"measured_{number:02}"
        (folder / "app" / name).mkdir()
        for file, text in FILES.items():
            content = text.format(name=name, title=f"Item{number:02}")
            (folder / "app" / name / file).write_text(content if file.endswith(".py") else text)
    compileall.compile_dir(folder / "app", quiet=1)
    return folder


def start(folder: Path, modules: int) -> tuple[float, float]:
    """CPU seconds of one start: without the small modules' own code, and of that alone."""
    env = {"PATH": os.environ["PATH"], "ENVIRONMENT": "testing", "VAR_DIR": str(folder / "var")}
    command = (sys.executable, "-c", START, str(modules))
    done = subprocess.run(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True, check=True)
    rest, own = map(float, done.stdout.split()[-2:])
    return rest, own


def measure(rounds: int) -> dict[str, object]:
    """Both copies in turn."""
    with tempfile.TemporaryDirectory() as folder:
        copies = {modules: copy_with(modules, Path(folder) / str(modules)) for modules in (FEW, MANY)}
        found: dict[int, list[tuple[float, float]]] = {modules: [] for modules in copies}
        for _ in range(rounds):
            for modules, copy in copies.items():
                found[modules].append(start(copy, modules))
    ratios = sorted(many[0] / few[0] for few, many in zip(found[FEW], found[MANY], strict=True))
    return {
        "modules": [FEW, MANY],
        "start_ms": [round(statistics.median(rest for rest, _ in found[one]) * 1000) for one in copies],
        "own_code_ms": [round(statistics.median(own for _, own in found[one]) * 1000) for one in copies],
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
