"""The container files, read as text: what a build would refuse, or an image should never hold, without building one."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("server", "worker")
DATABASE = ("sqlalchemy", "psycopg", "alembic", "asyncpg")
WEB = ("fastapi", "uvicorn", "starlette", "jinja2")
TRAINING = ("torch", "opencv", "safetensors")


def steps(program: str) -> list[tuple[str, str]]:
    """(instruction, arguments) of a Dockerfile, with continued lines joined and comments left out."""
    text = (ROOT / f"Dockerfile.{program}").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined]


def arguments(program: str, instruction: str) -> list[str]:
    return [rest for name, rest in steps(program) if name == instruction]


def copied(program: str) -> list[str]:
    return [source for rest in arguments(program, "COPY") for source in rest.split()[:-1]]


def requirements(program: str) -> list[str]:
    """What the image installs, from the script that its build runs."""
    command = [sys.executable, str(ROOT / "deploy" / "requirements.py"), program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.lower().split("\n")


def in_build_context(path: str) -> bool:
    """Whether .dockerignore lets a path through; its last matching line decides."""
    let_in = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        if (
            fnmatch.fnmatch(path, pattern)
            or path.startswith(f"{pattern}/")
            or fnmatch.fnmatch(path, pattern.replace("**/", "*/"))
        ):
            let_in = line.startswith("!")
    return let_in


def compose(name: str = "docker-compose.yml") -> Any:
    return yaml.safe_load((ROOT / name).read_text())


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_copied_file_exists_and_is_in_the_build_context(program: str) -> None:
    sources = copied(program)
    assert program in sources
    assert [source for source in sources if not (ROOT / source).exists() or not in_build_context(source)] == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_image_holds_the_packages_that_its_code_imports(program: str) -> None:
    packages = {name for name in os.listdir(ROOT) if (ROOT / name / "__init__.py").is_file()}
    needed, seen = {program}, set()
    while needed - seen:
        package = (needed - seen).pop()
        seen.add(package)
        for module in (ROOT / package).rglob("*.py"):
            top_level = re.findall(r"^(?:from|import) (\w+)", module.read_text(), re.MULTILINE)
            needed |= packages & set(top_level)
    assert needed <= set(copied(program))


@pytest.mark.parametrize(("program", "never"), [("server", TRAINING), ("worker", DATABASE + WEB)])
def test_image_does_not_install_what_is_the_other_programs(program: str, never: tuple[str, ...]) -> None:
    assert [line for line in requirements(program) if line.startswith(never)] == []
    installs = [rest for rest in arguments(program, "RUN") if "install" in rest]
    assert installs
    assert [rest for rest in installs for name in never if re.search(rf"\b{name}", rest.lower())] == []
    assert not set(copied(program)) & {"worker" if program == "server" else "server", "tests"}


def test_worker_installs_what_opencv_lacks_and_lets_the_index_of_torch_be_chosen() -> None:
    apt = next(rest for rest in arguments("worker", "RUN") if "apt-get" in rest)
    assert "libgl1" in apt
    assert "libglib2.0-0" in apt
    assert arguments("worker", "ARG") == ['TORCH_INDEX=""']
    torch = next(rest for rest in arguments("worker", "RUN") if "TORCH_INDEX" in rest)
    assert "-c constraints.txt" in torch
    assert "cv2" in (ROOT / "deploy" / "worker-health.py").read_text()


@pytest.mark.parametrize("program", PROGRAMS)
def test_image_runs_as_a_numbered_user_with_a_health_check_and_pinned_packages(program: str) -> None:
    assert arguments(program, "USER") == ["10001:10001"]
    names = [name for name, _ in steps(program)]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert "HEALTHCHECK" in names
    assert arguments(program, "ENTRYPOINT")[0].startswith("[")  # without a shell, which would swallow SIGTERM
    assert [rest for rest in arguments(program, "RUN") if "pip install" in rest and "-c constraints.txt" not in rest] == []


def test_compose_publishes_the_coordinator_alone_and_to_this_machine_alone() -> None:
    services = compose()["services"]
    assert sorted(services) == ["postgres", "server", "worker"]
    assert [name for name, service in services.items() if "ports" in service] == ["server"]
    assert [port["host_ip"] for port in services["server"]["ports"]] == ["${HYPEVOLVE_ADDRESS:-127.0.0.1}"]


def test_compose_holds_no_password_and_keeps_workers_away_from_the_database() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert not re.search(r"PASSWORD: *\S", text)
    assert "HOST_AUTH_METHOD" not in text
    file = compose()
    assert file["services"]["worker"]["networks"] == ["default"]
    assert file["services"]["postgres"]["networks"] == ["store"]
    assert file["networks"]["store"] == {"internal": True}
    assert not [volume for volume in file["services"]["worker"]["volumes"] if "secrets" in volume]


def test_compose_gives_the_password_to_the_user_that_the_image_runs_as() -> None:
    script = compose()["services"]["postgres"]["entrypoint"][-1]
    assert f"chown {arguments('server', 'USER')[0]} " in script


@pytest.mark.parametrize("program", PROGRAMS)
def test_compose_builds_and_confines_our_programs(program: str) -> None:
    service = compose()["services"][program]
    assert (ROOT / service["build"]["dockerfile"]).is_file()
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "container_name" not in service  # which would forbid --scale


def test_compose_has_volumes_for_what_must_survive() -> None:
    file = compose()
    named = {v.partition(":")[0] for s in file["services"].values() for v in s["volumes"] if not v.startswith("$")}
    assert named == set(file["volumes"])
    assert "healthcheck" in file["services"]["postgres"]


def test_gpu_override_adds_a_reservation_and_nothing_else() -> None:
    assert compose("docker-compose.gpu.yml")["services"] == {
        "worker": {
            "deploy": {
                "resources": {"reservations": {"devices": [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]}}
            }
        }
    }
    assert "deploy" not in compose()["services"]["worker"]  # the plain file comes up on a machine without a GPU


@pytest.mark.parametrize("script", ["check-containers.sh", "worker-start.sh"])
def test_shell_scripts_parse(script: str) -> None:
    subprocess.run(["sh", "-n", str(ROOT / "deploy" / script)], check=True)


@pytest.mark.skipif(shutil.which("flock") is None, reason="no flock here; the image has it")
def test_each_worker_of_a_shared_volume_takes_a_folder_of_its_own(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    python = programs / "python"  # in place of the worker: says its folder, and lives until its input ends
    python.write_text('#!/bin/sh\necho "$4"\nread -r _ || true\n')
    python.chmod(0o755)
    state = tmp_path / "state"
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    command = ["sh", str(ROOT / "deploy" / "worker-start.sh"), str(state), "--devices", "cpu"]

    def start() -> tuple[subprocess.Popen[str], str]:
        pipe = subprocess.PIPE
        worker = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)
        assert worker.stdout is not None
        return worker, worker.stdout.readline().strip()

    first, folder = start()
    second, other = start()
    assert [folder, other] == [f"{state}/1", f"{state}/2"]
    first.kill()
    first.wait()
    third, again = start()
    assert again == f"{state}/1"  # and with it what the dead worker left there
    for worker in (second, third):
        worker.communicate("")
