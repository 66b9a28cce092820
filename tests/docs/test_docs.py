"""The documents say what the code says; each message tells what to write where."""

import ast
import re
import subprocess
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import get_args
from urllib.parse import unquote

import pytest
import yaml

from include.domain.object_keys import TableName
from include.domain.rows import CaptureRow, CaptureState, ContactTaskRow, Outcome
from include.provider_info import get_provider_info
from include.storage.tables import ROW_TYPES
from include.webex.connection import REGIONS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
# Assembled, so that this file does not hold what it forbids.
FORBIDDEN = (
    *("/" + place for place in ("work/main", "work/shared", "home/", "root/", "opt/pypi")),
    *(word + "-mirror" for word in ("pypi", "npm")),
    "packages." + "internal",
    "file" + ":///opt",
    "artifact" + "ory",
)
ERROR_CLASSES = {
    "TransientError",
    "PermanentError",
    "TokenRejected",
    "CapturesFailed",
    "Refused",
    "Forbidden",
    "TooLarge",
    "Unauthorized",
    "DownloadBroken",
    "DownloadExpired",
    "DownloadGone",
    "DownloadRefused",
    "Implausible",
}


def tracked_files() -> list[Path]:
    """The files of the project, those included that the next commit may add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    names = [name for name in listed.stdout.decode().split("\0") if name]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def markdown_files() -> list[Path]:
    return [path for path in tracked_files() if path.suffix == ".md"]


def section(text: str, heading: str) -> str:
    """What stands between a heading and the next of its rank or a higher one."""
    level = heading.split(" ", maxsplit=1)[0]
    found = re.search(
        rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.DOTALL | re.MULTILINE
    )
    assert found, f"the heading '{heading}' is missing"
    return found.group(1)


def first_cells(text: str) -> list[str]:
    """The first cell of every row of the tables in a text, without heads and quotes."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    heads = {above for above, below in pairwise(rows) if set(below) <= set("|- ")}
    body = [row for row in rows if row not in heads and not set(row) <= set("|- ")]
    return [row.split("|")[1].strip().strip("`") for row in body]


def dag_files() -> list[Path]:
    return sorted(path for path in (ROOT / "dags").glob("*.py") if path.name != "__init__.py")


def test_every_dag_is_in_the_readme_and_no_other():
    cells = first_cells(section(README, "## The DAGs"))

    assert sorted(cells) == [path.stem for path in dag_files()], (
        "README.md, 'The DAGs': one row for each file in dags/"
    )


@pytest.mark.parametrize("table", sorted(ROW_TYPES))
def test_every_column_is_in_the_data_dictionary_in_its_order(table: TableName):
    text = section((DOCS / "data-dictionary.md").read_text(), f"## Table `{table}`").split("\n### ")

    assert first_cells(text[0]) == [field.name for field in fields(ROW_TYPES[table])], (
        f"docs/data-dictionary.md, '{table}': the fields of its row in include/domain/rows.py"
    )


@pytest.mark.parametrize("row_type", [ContactTaskRow, CaptureRow], ids=lambda kind: kind.__name__)
def test_columns_that_cannot_be_null_are_told_so(row_type: type):
    text = (DOCS / "data-dictionary.md").read_text()
    never = set(re.findall(r"^\| `(\w+)` \|.*\| never[^|]*\|$", text, re.MULTILINE))

    required = {field.name for field in fields(row_type) if "None" not in str(field.type)}

    assert required <= never


@pytest.mark.parametrize(
    ("heading", "values"),
    [
        ("### Values of `capture_state`", get_args(CaptureState)),
        ("### Values of `outcome`", get_args(Outcome)),
    ],
    ids=["capture_state", "outcome"],
)
def test_every_value_is_in_the_data_dictionary(heading: str, values: tuple[str, ...]):
    text = (DOCS / "data-dictionary.md").read_text()

    assert sorted(first_cells(section(text, heading))) == sorted(values)


def test_every_field_of_the_webex_connection_is_documented():
    (connection,) = get_provider_info()["connection-types"]
    text = section((DOCS / "configuration.md").read_text(), "## Connection `webex_contact_center`")

    documented = [cell.removeprefix("extra `") for cell in first_cells(text)]

    assert set(connection["conn-fields"]) <= set(documented)
    for label in (
        *connection["ui-field-behaviour"]["relabeling"].values(),
        *(field["label"] for field in connection["conn-fields"].values()),
    ):
        assert f"| {label} |" in text, f"docs/configuration.md: the label '{label}' of the form"


def test_every_region_is_documented():
    text = section((DOCS / "configuration.md").read_text(), "## Connection `webex_contact_center`")

    assert set(REGIONS) <= set(first_cells(text))


def test_every_dag_parameter_is_documented_and_no_other():
    tree = ast.parse((ROOT / "plugins" / "archive_run.py").read_text())
    (params,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and node.target.id == "ARCHIVE_PARAMS"
    ]
    assert isinstance(params, ast.Dict)
    names = [ast.literal_eval(key) for key in params.keys if key]

    text = section((DOCS / "configuration.md").read_text(), "## Parameters of `archive_captures`")

    assert first_cells(text) == names


def raised_messages() -> dict[str, str]:
    """Each message that is written where an error is made, "…" for its variable parts, by its place."""
    found: dict[str, str] = {}
    for folder in ("include", "plugins"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Name)
                    and node.func.id in ERROR_CLASSES
                    and node.args
                ):
                    continue
                message = node.args[0]
                parts = message.values if isinstance(message, ast.JoinedStr) else [message]
                text = "".join(
                    part.value
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                    else "…"
                    for part in parts
                )
                if text.strip("…"):
                    found[f"{path.relative_to(ROOT)}:{node.lineno}"] = text
    return found


def telling_part(message: str) -> str:
    """The longest fixed part of the first clause that has one of a dozen letters."""
    clauses = re.split(r"[:;(]|\.(?: |$)", message)
    fixed = [max(re.split(r"…", clause), key=len).strip(" ,)") for clause in clauses]
    return next((part for part in fixed if len(part) >= 12), max(fixed, key=len))


def test_every_error_has_a_row_in_the_runbook():
    runbook = (DOCS / "operations.md").read_text()
    messages = raised_messages()
    assert len(messages) > 40

    missing = {
        place: message
        for place, message in messages.items()
        if telling_part(message) not in runbook
    }

    assert not missing, (
        "docs/operations.md, 'Errors, sentence by sentence': give each of these a row that quotes "
        + "; ".join(sorted(telling_part(message) for message in missing.values()))
    )


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def test_every_relative_link_resolves():
    broken: list[str] = []
    for path in markdown_files():
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            place = (path.parent / unquote(name)) if name else path
            if not place.exists():
                broken.append(f"{path.relative_to(ROOT)}: {target}")
            elif anchor and anchor not in anchors(place):
                broken.append(f"{path.relative_to(ROOT)}: no heading for {target}")

    assert not broken


def test_one_sentence_per_line():
    """A diff then shows the sentence that changed."""
    offending: list[str] = []
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))):
        is_code = False
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if line.lstrip().startswith("```"):
                is_code = not is_code
            elif not is_code and not re.match(r"\s*(\||-|\d)", line):  # tables and lists are free
                plain = re.sub(r"`[^`]*`", "x", line)
                if re.search(r"[a-z)][.!?] [A-Z]", plain):
                    offending.append(f"{path.relative_to(ROOT)}:{number}")

    assert not offending


def test_no_file_names_a_machine_or_a_registry():
    """What is true on one machine only misleads everywhere else."""
    found: list[str] = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {word}" for word in FORBIDDEN if word in text.lower()]

    assert not found


def test_compose_variables_are_in_the_example_file():
    compose = (ROOT / "docker-compose.yaml").read_text()
    used = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", compose))
    example = set(re.findall(r"^#? ?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))

    assert used == example
    for name in used:
        if re.search(r"PASSWORD|SECRET|KEY|CONN", name):
            assert f"${{{name}:?" in compose, f"docker-compose.yaml: {name} must have no default"


def test_the_athena_table_has_the_columns_of_captures():
    """All but org_id: a partition of the table cannot be a column too."""
    ddl = re.search(r"CREATE EXTERNAL TABLE captures \((.*?)\)\nPARTITIONED", README, re.DOTALL)
    assert ddl

    names = [column.split()[0] for column in ddl.group(1).split(",")]

    assert ["org_id", *names] == [field.name for field in fields(CaptureRow)]


def test_the_compose_file_names_exact_images_and_only_its_own_services():
    compose = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
    services = compose["services"]

    for name, service in services.items():
        assert re.search(r":\d+\.\d+|:\d+-", service["image"]), f"{name}: a tag with a version"
        assert set(service.get("depends_on", {})) <= set(services)
        named = {volume.split(":")[0] for volume in service.get("volumes", [])}
        assert named <= set(compose["volumes"])
    assert "@redis:" in services["worker"]["environment"]["AIRFLOW_CONN_WXCC_RATE_BUDGET"], (
        "the rate budget must be shared by all workers"
    )
