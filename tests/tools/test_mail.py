"""`kit mail preview`."""

import json
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.core.services.mail import BaseTemplate
from tests.core.services import templates
from tests.processes import kit
from tools.mail_samples import sample_of

pytestmark = pytest.mark.once


def preview(*arguments: str) -> Result:
    """The command in this process, where the templates of the tests are known too."""
    return CliRunner().invoke(app, ["mail", "preview", *arguments])


def refused(*arguments: str) -> str:
    """The one line that says why not."""
    done = preview(*arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    return line


class TestPreview:
    def test_without_a_name_they_are_listed(self, tmp_path: Path) -> None:
        done = kit("mail", "preview", VAR_DIR=str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert "A link that sets a new password." in done.stdout
        assert "\x1b" not in done.stdout
        listed = json.loads(preview("--json").stdout)
        assert {"name": "Ticket", "template": "tests.core.services.templates:Ticket"}.items() <= next(
            row for row in listed if row["name"] == "Ticket"
        ).items()
        assert "AuthTemplate" not in [row["name"] for row in listed]  # the base of others

    def test_every_one_of_the_modules_has_a_sample(self) -> None:
        listed = json.loads(preview("--json").stdout)
        # Not those of the core: the one there shows views of packages.
        names = [
            row["name"] for row in listed if row["template"].startswith("app.") and ".core." not in row["template"]
        ]
        assert len(names) >= 6
        for name in names:
            done = preview(name, "--json")
            assert done.exit_code == 0, done.stderr
            shown = json.loads(done.stdout)
            assert "Hello ann" in shown["html"]
            assert "Hello ann" in shown["text"]

    def test_both_parts_are_shown_or_one(self) -> None:
        both = preview("tests.core.services.templates:Both").stdout
        assert both == "--- html ---\n<p>Hello <b>name</b></p>\n--- text ---\nHello name, in plain words\n"
        assert preview("both", "--html").stdout == "<p>Hello <b>name</b></p>\n"
        assert preview("both", "--text").stdout == "Hello name, in plain words\n"

    def test_values_can_be_given(self) -> None:
        assert preview("Both", "--text", "--data", '{"name": "Zoë <x>"}').stdout == "Hello Zoë <x>, in plain words\n"

    def test_one_with_an_init_of_its_own_is_made_of_its_parameters(self) -> None:
        shown = preview("Plain", "--text", "--data", '{"user_name": "Zoë", "price": "2"}').stdout
        assert shown == "Dear Zoë: 12:00, 2030, 4\n"
        assert "Plain has no field nmae: it has user_name, at, price, token." in refused(
            "Plain", "--data", '{"nmae": 1}'
        )

    def test_files_can_be_written(self, tmp_path: Path) -> None:
        done = preview("Both", "--output", str(tmp_path / "made"))
        paths = [Path(line) for line in done.stdout.splitlines()]
        assert [path.name for path in paths] == ["Both.html", "Both.txt", "Both.eml"]
        assert paths[1].read_text() == "Hello name, in plain words"
        message = BytesParser(EmailMessage, policy=default).parsebytes(paths[2].read_bytes())
        assert message.get_content_type() == "multipart/alternative"


class TestRefusals:
    def test_an_unknown_name_is_answered_with_close_ones(self) -> None:
        assert refused("Welcom") == "No template is called 'Welcom'. Did you mean Welcome?"
        assert refused("zzz") == "No template is called 'zzz'. `kit mail preview` lists them."

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            ("{", "--data is not JSON"),
            ("[" * 100_000, "--data is not JSON"),
            ("[1]", "--data must be a JSON object"),
            ('{"nmae": 1}', "Both has no field nmae: it has name."),
            ('{"name": 1}', "--data does not fit Both: name: Input should be a valid string"),
        ],
    )
    def test_data_that_does_not_fit(self, data: str, reason: str) -> None:
        assert reason in refused("Both", "--data", data)

    def test_a_view_that_fails_is_named(self) -> None:
        line = refused("Faulty")
        assert line.startswith("Faulty cannot be rendered: ")
        assert "views/faulty.html:1: UndefinedError: 'nobody_gave_this' is undefined" in line

    def test_a_template_without_a_sample_says_how_to_give_one(self) -> None:
        line = refused("Picky")
        assert line.startswith("Picky has no sample (code: String should match pattern")
        assert "Field(examples=[...])" in line

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert "cannot be written" in refused("Both", "--output", str(tmp_path / "file"))


class TestSample:
    def test_follows_examples_defaults_and_types(self) -> None:
        made = sample_of(templates.Motley)
        assert (made.named, made.kept, made.title, made.count) == ("Ann", 3, "title", 6)
        assert (made.address, str(made.link), made.kind) == ("ann@example.com", "https://example.com/", "first")
        assert (made.maybe, made.rows[0].price, made.tree.children) == ("maybe", 1, [])
        assert isinstance(made, BaseTemplate)

    def test_can_be_written_by_hand(self) -> None:
        assert sample_of(templates.Handmade).name == "by hand"
