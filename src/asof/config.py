"""Settings: one class, read from the environment and `asof.toml`."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import TomlConfigSettingsSource as TomlSource

from asof.errors import AsofError, DefinitionError, did_you_mean
from asof.timeframes import timeframe

FILE = "asof.toml"
_AGE = r"^(off|[1-9][0-9]{0,4}[hd])$"


def _split(value: object) -> object:
    """`AAPL, MSFT` as its parts; in asof.toml a list may be written as a list."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _checked(timeframes: tuple[str, ...]) -> tuple[str, ...]:
    for text in timeframes:
        try:
            timeframe(text)
        except DefinitionError as error:
            raise ValueError(str(error)) from None
    return timeframes


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Timeframes = Annotated[tuple[str, ...], NoDecode, AfterValidator(_checked), BeforeValidator(_split)]


class Settings(BaseSettings):
    """Everything that can be set. The environment wins over `asof.toml`, and a command's options over both."""

    model_config = SettingsConfigDict(toml_file=FILE, extra="forbid", populate_by_name=True)

    store: str | None = Field(
        None,
        validation_alias="ASOF_STORE",
        description="URL of the store; where it is not given, PostgreSQL if there is a `POSTGRES_PASSWORD`, else `duckdb:///asof.duckdb`",
    )
    features: Path | None = Field(None, validation_alias="ASOF_FEATURES", description="Python file that defines feature sets")
    event_window_minutes: int = Field(
        60, ge=1, le=525_600, validation_alias="FEATURE_EVENT_WINDOW_MINUTES", description="Event window of `fs_v1`, in minutes"
    )
    min_event_count: int = Field(
        3, ge=1, validation_alias="FEATURE_MIN_EVENT_COUNT", description="Fewer events than this raise `LOW_EVENT_COUNT` in `fs_v1`"
    )
    pipeline_version: str = Field(
        "feature-store.v1.0", min_length=1, validation_alias="PIPELINE_VERSION", description="Written beside every vector"
    )

    postgres_host: str = Field("timescaledb", validation_alias="POSTGRES_HOST", description="Server of the PostgreSQL store")
    postgres_port: int = Field(5432, ge=1, le=65_535, validation_alias="POSTGRES_PORT", description="Its port")
    postgres_db: str = Field("market", min_length=1, validation_alias="POSTGRES_DB", description="Its database")
    postgres_user: str = Field("market", min_length=1, validation_alias="POSTGRES_USER", description="Who logs in")
    postgres_password: SecretStr | None = Field(
        None, validation_alias="POSTGRES_PASSWORD", description="Their password; there is no default"
    )
    columnstore_after: str = Field(
        "30d",
        pattern=_AGE,
        validation_alias="ASOF_COLUMNSTORE_AFTER",
        description="TimescaleDB compresses chunks of vectors and bars that are older, such as `30d`; `off` for never",
    )
    retention: str = Field(
        "off",
        pattern=_AGE,
        validation_alias="ASOF_RETENTION",
        description="TimescaleDB drops chunks of vectors and bars that are older, such as `730d`; `off` for never",
    )

    tickers: Names = Field(
        (), validation_alias="FEATURE_TICKERS", description="Instruments that the service computes, with commas between them; none for all"
    )
    timeframes: Timeframes = Field(
        ("1m", "1d"), min_length=1, validation_alias="FEATURE_TIMEFRAMES", description="Timeframes that the service computes"
    )
    feature_set_version: Names = Field(
        ("fs_v1",), min_length=1, validation_alias="FEATURE_SET_VERSION", description="Feature sets that the service computes"
    )
    refresh_seconds: float = Field(
        60, gt=0, validation_alias="FEATURE_REFRESH_SECONDS", description="Seconds from one cycle of the service to the next"
    )
    lookback_periods: int = Field(
        200,
        ge=1,
        validation_alias="FEATURE_LOOKBACK_PERIODS",
        description="Bars before a changed one that a cycle reads at first; where a feature set needs more, more are read",
    )
    health_host: str = Field("127.0.0.1", validation_alias="HEALTH_HOST", description="Address of `/health` and `/metrics`")
    health_port: int = Field(8000, ge=0, le=65_535, validation_alias="HEALTH_PORT", description="Their port; 0 for any that is free")

    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info", validation_alias="LOG_LEVEL", description="What the service logs: this, and what is worse"
    )
    log_format: Annotated[Literal["auto", "json", "text"], BeforeValidator(_lower)] = Field(
        "auto", validation_alias="LOG_FORMAT", description="Logs as JSON lines or to be read; `auto` is to be read on a terminal alone"
    )

    kafka_bootstrap_servers: str = Field(
        "redpanda:29092", validation_alias="KAFKA_BOOTSTRAP_SERVERS", description="Brokers of the events; empty for none"
    )
    enriched_topic: str = Field("events.enriched.v1", validation_alias="ENRICHED_TOPIC", description="Topic of enriched events")
    dead_letter_topic: str = Field("features.dlq.v1", validation_alias="FEATURE_DLQ_TOPIC", description="Topic of unusable messages")

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
        return init_settings, InitSettingsSource(settings_cls, set_here), TomlSource(settings_cls)

    @property
    def store_url(self) -> str:
        """The URL of the store: as given, or put together from `POSTGRES_HOST` and its like."""
        if self.store is not None:
            return self.store
        if self.postgres_password is None:
            return "duckdb:///asof.duckdb"
        user, password = quote(self.postgres_user, safe=""), quote(self.postgres_password.get_secret_value(), safe="")
        return f"postgresql://{user}:{password}@{self.postgres_host}:{self.postgres_port}/{quote(self.postgres_db, safe='')}"


def variables() -> dict[str, str]:
    """The environment variable of each setting."""
    return {name: str(field.validation_alias) for name, field in Settings.model_fields.items()}


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
        given = "what is given" if "password" in name else repr(first["input"])
        raise ConfigError(f"setting {name}: {first['msg']}{hint}, not {given}") from None
