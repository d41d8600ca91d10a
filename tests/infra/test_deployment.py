"""The files of the deployment: what they promise can be read off them, and docker-compose takes them. No engine is needed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import asof
from asof.config import Settings, variables

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
COMPOSE = yaml.safe_load((INFRA / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
DOCKERFILE = (INFRA / "Dockerfile").read_text()
PROFILES = {
    "infra": {"timescaledb", "redpanda", "init-topics"},
    "data": {"timescaledb", "redpanda", "init-topics", "feature-store"},
    "apps": {"timescaledb", "redpanda", "init-topics", "feature-store"},
    "observability": {"prometheus", "grafana"},
}
PASSWORDS = ("POSTGRES_PASSWORD", "GRAFANA_ADMIN_PASSWORD")
OURS = {"FEATURE_TICKERS": "AAPL,MSFT,TSLA,ASOF-SMOKE"}
"""What .env.example says otherwise than the settings' defaults."""


def example() -> dict[str, tuple[str, bool]]:
    """The variables of .env.example: the value of each, and whether it is set or only named."""
    found = re.findall(r"^(# )?([A-Z][A-Z_]+)=(.*)$", (INFRA / ".env.example").read_text(), re.MULTILINE)
    return {name: (value, not hidden) for hidden, name, value in found}


def compose(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = shutil.which("docker-compose")
    if command is None:
        pytest.skip("there is no docker-compose: make servers")
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables}
    return subprocess.run([command, *arguments], cwd=INFRA, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_has_its_services_and_whatever_they_depend_on(profile):
    inside = {name for name, service in SERVICES.items() if profile in service["profiles"]}
    assert inside == PROFILES[profile]
    assert {needed for name in inside for needed in SERVICES[name].get("depends_on", {})} <= inside


@pytest.mark.parametrize("missing", PASSWORDS)
def test_without_a_password_docker_compose_refuses_and_says_how_to_make_one(missing):
    done = compose("--profile", "apps", "config", **{name: "x" * 40 for name in PASSWORDS if name != missing})
    assert done.returncode != 0
    assert f"${{{missing}:?there is no default. Make one (openssl rand -hex 24) and write it to infra/.env}}" in done.stderr
    empty = compose("config", **{name: "" if name == missing else "x" for name in PASSWORDS})
    assert empty.returncode != 0


@pytest.mark.parametrize("profile", PROFILES)
def test_with_the_passwords_docker_compose_takes_every_profile(profile):
    done = compose("--profile", profile, "config", **dict.fromkeys(PASSWORDS, "hunter2-hunter2"))
    assert done.returncode == 0, done.stderr
    taken = yaml.safe_load(done.stdout)["services"]
    assert set(taken) >= PROFILES[profile]
    assert taken["feature-store"]["ports"] == ["127.0.0.1:8006:8000/tcp"]


def test_settings_of_the_environment_reach_the_service_and_its_addresses_stay():
    given = {"FEATURE_TICKERS": "IBM", "HEALTH_PORT": "1", "POSTGRES_HOST": "elsewhere", "POSTGRES_USER": "me"}
    done = compose("config", **dict.fromkeys(PASSWORDS, "p"), **given)
    environment = yaml.safe_load(done.stdout)["services"]["feature-store"]["environment"]
    assert environment["FEATURE_TICKERS"] == "IBM"
    assert environment["POSTGRES_USER"] == "me"
    assert (environment["HEALTH_PORT"], environment["POSTGRES_HOST"]) == ("8000", "timescaledb")


def test_every_setting_reaches_the_service():
    assert [name for name in variables().values() if name not in SERVICES["feature-store"]["environment"]] == []


def test_the_service_starts_after_a_healthy_database_and_broker_and_finished_topics():
    assert SERVICES["feature-store"]["depends_on"] == {
        "timescaledb": {"condition": "service_healthy"},
        "redpanda": {"condition": "service_healthy"},
        "init-topics": {"condition": "service_completed_successfully"},
    }
    assert all("healthcheck" in SERVICES[name] for name in ("timescaledb", "redpanda", "prometheus", "grafana"))


def test_the_topics_of_the_contract_are_made():
    made = SERVICES["init-topics"]["command"][0]
    assert 'make "$$ENRICHED_TOPIC" --partitions 6\n' in made
    assert re.search(r'make "\$\$FEATURES_TOPIC" .*cleanup\.policy=compact\n', made)
    assert 'make "$$OHLCV_TOPIC" ' in made
    assert "${OHLCV_TOPIC:-market.ohlcv.v1}" in SERVICES["init-topics"]["environment"].values()
    assert "${FEATURES_TOPIC:-features.v1}" in SERVICES["init-topics"]["environment"].values()
    assert 'make "$$FEATURE_DLQ_TOPIC" ' in made


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_has_no_more_rights_and_room_than_it_needs(name):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("read_only") or name in ("redpanda", "init-topics")
    assert "privileged" not in service
    assert service["mem_limit"]
    assert service["cpus"]
    assert service["pids_limit"]


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_has_a_version(name):
    repository, _, tag = SERVICES[name]["image"].rpartition(":")
    assert repository
    assert re.search(r"\d+\.\d+\.\d+", tag)


def test_the_image_of_the_service_has_the_version_of_asof():
    assert SERVICES["feature-store"]["image"] == f"asof:{asof.__version__}"


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_this_machine_unless_told_otherwise(name):
    assert all(port.startswith("${PUBLISH_ADDRESS:-127.0.0.1}:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_passwords_come_from_outside_or_not_at_all(name):
    for variable, value in SERVICES[name].get("environment", {}).items():
        assert "PASSWORD" not in variable or value is None or re.match(r"\$\{[A-Z_]+:\?", value)


def test_the_example_has_every_setting_with_its_default_and_a_comment():
    found = example()
    defaults = {str(f.validation_alias): f.default for f in Settings.model_fields.values()}
    assert [name for name in defaults if name not in found] == []
    for name, default in defaults.items():
        value, _ = found[name]
        shown = ",".join(default) if isinstance(default, tuple) else "" if default in (None, {}) else str(default)
        if name != "HEALTH_HOST":  # within a container it has to be every address
            assert value == OURS.get(name, shown), name
    assert {name for name, (value, given) in found.items() if given and not value} == set(PASSWORDS)


def test_the_example_names_nothing_that_nobody_reads():
    used = {*variables().values(), *re.findall(r"\$\{([A-Z_]+)", (INFRA / "docker-compose.yml").read_text())}
    assert set(example()) - used == {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SERVICE_NAME", "COMPOSE_PROJECT_NAME"}


def instructions(name: str) -> list[str]:
    """The instructions of the Dockerfile of one kind, on one line each."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    return re.findall(rf"^\s*{name} (.+)$", text, re.MULTILINE)


def test_the_image_runs_as_nobody_in_particular_and_gets_signals_itself():
    assert instructions("USER") == ["10001:10001"]
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["/usr/local/bin/entrypoint"]
    assert json.loads(instructions("CMD")[-1]) == ["run"]
    assert (INFRA / "entrypoint.sh").read_text().endswith('\nexec asof "$@"\n')
    check = json.loads(instructions("HEALTHCHECK")[0].partition("CMD ")[2])
    assert check[:2] == ["python", "-c"]
    compile(check[2], "HEALTHCHECK", "exec")


def test_the_image_is_built_from_the_lock_by_hash_on_a_base_that_has_a_version():
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-bookworm( AS build)?", base) for base in instructions("FROM"))
    downloads = [line for line in instructions("RUN") if "pip download" in line]
    assert len(downloads) == 1
    assert "--require-hashes" in downloads[0]
    assert "PIP_NO_INDEX=1" in DOCKERFILE.partition(downloads[0].split()[-1])[2]


def test_what_the_image_copies_is_in_the_checkout_and_not_ignored():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1] if not word.startswith("--")]
    for path in copied:
        assert (ROOT / path).exists()
    assert set(copied) == allowed


def test_kernels_are_compiled_and_found_for_the_same_processor():
    settings = re.findall(r"NUMBA_CPU_NAME=(\S+) NUMBA_CPU_FEATURES=(\S+)", DOCKERFILE)
    assert settings == [("generic", '""')] * 2
