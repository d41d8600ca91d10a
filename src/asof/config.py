"""Settings: one class, read from the environment and `asof.toml`."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from pydantic import AliasChoices, Field, ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from asof.errors import AsofError, did_you_mean

FILE = "asof.toml"
_AGE = r"^(off|[1-9][0-9]{0,4}[hd])$"


class Settings(BaseSettings):
    """Everything that can be set. The environment wins over `asof.toml`, and a command's options over both."""

    model_config = SettingsConfigDict(toml_file=FILE, extra="forbid", populate_by_name=True)

    store: str = Field("duckdb:///asof.duckdb", validation_alias=AliasChoices("ASOF_STORE", "store"), description="URL of the store")
    features: Path | None = Field(
        None, validation_alias=AliasChoices("ASOF_FEATURES", "features"), description="Python file that defines feature sets"
    )
    event_window_minutes: int = Field(
        60,
        ge=1,
        le=525_600,
        validation_alias=AliasChoices("FEATURE_EVENT_WINDOW_MINUTES", "event_window_minutes"),
        description="Event window of `fs_v1`, in minutes",
    )
    min_event_count: int = Field(
        3,
        ge=1,
        validation_alias=AliasChoices("FEATURE_MIN_EVENT_COUNT", "min_event_count"),
        description="Fewer events than this raise `LOW_EVENT_COUNT` in `fs_v1`",
    )
    pipeline_version: str = Field(
        "feature-store.v1.0",
        min_length=1,
        validation_alias=AliasChoices("PIPELINE_VERSION", "pipeline_version"),
        description="Written beside every vector",
    )

    columnstore_after: str = Field(
        "30d",
        pattern=_AGE,
        validation_alias=AliasChoices("ASOF_COLUMNSTORE_AFTER", "columnstore_after"),
        description="TimescaleDB compresses chunks of vectors and bars that are older, such as `30d`; `off` for never",
    )
    retention: str = Field(
        "off",
        pattern=_AGE,
        validation_alias=AliasChoices("ASOF_RETENTION", "retention"),
        description="TimescaleDB drops chunks of vectors and bars that are older, such as `730d`; `off` for never",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # it would also take the names of asof.toml, such as STORE
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # pydantic-settings passes them by name
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then `asof.toml`."""
        set_here = {name: os.environ[variable] for name, variable in variables().items() if variable in os.environ}
        return init_settings, InitSettingsSource(settings_cls, set_here), TomlConfigSettingsSource(settings_cls)


def variables() -> dict[str, str]:
    """The environment variable of each setting."""
    found = {}
    for name, field in Settings.model_fields.items():
        assert isinstance(field.validation_alias, AliasChoices)
        found[name] = str(field.validation_alias.choices[0])
    return found


class ConfigError(AsofError):
    """A setting that cannot be used."""

    exit_code = 2


def load_settings() -> Settings:
    """The settings of this folder and environment. Raises `ConfigError` naming the setting that is wrong."""
    try:
        return Settings()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{FILE} is not valid TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        hint = did_you_mean(name, list(Settings.model_fields)) if first["type"] == "extra_forbidden" else ""
        raise ConfigError(f"setting {name}: {first['msg']}{hint}, not {first['input']!r}") from None
