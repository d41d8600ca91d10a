"""Settings: one class, read from the environment and `asof.toml`."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import TomlConfigSettingsSource as TomlSource

from asof.calendars import Calendars, assigned
from asof.errors import AsofError, DefinitionError, did_you_mean
from asof.timeframes import duration, timeframe

FILE = "asof.toml"
_AGE = r"^(off|[1-9][0-9]{0,4}[hd])$"


def _split(value: object) -> object:
    """`AAPL, MSFT` as its parts; in asof.toml a list may be written as a list."""
    return _listed(value) if isinstance(value, str) else value


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _start(value: str) -> str:
    """`earliest`, `latest`, or a time with its zone."""
    if value not in ("earliest", "latest"):
        try:
            naive = datetime.fromisoformat(value).tzinfo is None
        except ValueError:
            raise ValueError("it is earliest, latest or a time, such as 2024-06-01T00:00:00Z") from None
        if naive:
            raise ValueError("the time has no zone: write 2024-06-01T00:00:00Z for UTC")
    return value


def _duration(value: str) -> str:
    try:
        duration(value)
    except DefinitionError as error:
        raise ValueError(str(error)) from None
    return value


def _properties(value: object) -> object:
    """`a.b=1,c=2` in the environment; in asof.toml a table, where `a.b = 1` is a table in a table."""
    if isinstance(value, str):
        parts = [part.partition("=") for part in _listed(value)]
        return {name.strip(): text.strip() for name, _, text in parts}
    return dict(_flat(value)) if isinstance(value, dict) else value


def _flat(table: dict[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, str(value).lower() if isinstance(value, bool | int | float) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _checked(timeframes: tuple[str, ...]) -> tuple[str, ...]:
    for text in timeframes:
        try:
            timeframe(text)
        except DefinitionError as error:
            raise ValueError(str(error)) from None
    return timeframes


def _calendars(value: object) -> object:
    """`XNYS`, or `AAPL=XNYS, BTC=24/7`, as the table that asof.toml has."""
    return assigned(value) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Properties = Annotated[dict[str, SecretStr], NoDecode, BeforeValidator(_properties)]
Timeframes = Annotated[tuple[str, ...], NoDecode, AfterValidator(_checked), BeforeValidator(_split)]


class Settings(BaseSettings):
    """Everything that can be set. The environment wins over `asof.toml`, and a command's options over both."""

    model_config = SettingsConfigDict(toml_file=FILE, extra="forbid", populate_by_name=True)

    store: str | None = Field(
        None,
        validation_alias="ASOF_STORE",
        description="URL of the store; where it is not given, PostgreSQL if there is a `POSTGRES_PASSWORD`, else `duckdb:///asof.duckdb`",
    )
    key: SecretStr | None = Field(
        None, validation_alias="ASOF_KEY", description="Key of the service that the store is, where it asks for one"
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

    calendars: Annotated[dict[str, str], NoDecode, BeforeValidator(_calendars)] = Field(
        {},
        validation_alias="ASOF_CALENDARS",
        description="The exchange whose sessions bars follow, such as `XNYS`; or one for each instrument, `AAPL=XNYS, *=24/7`",
    )

    mode: Annotated[Literal["periodic", "stream"], BeforeValidator(_lower)] = Field(
        "periodic",
        validation_alias="ASOF_MODE",
        description="`periodic` computes every `FEATURE_REFRESH_SECONDS`; `stream` reads bars from Kafka and computes as they close",
    )
    tickers: Names = Field(
        (), validation_alias="FEATURE_TICKERS", description="Instruments that the service computes, with commas between them; none for all"
    )
    timeframes: Timeframes = Field(
        ("1m", "1d"), min_length=1, validation_alias="FEATURE_TIMEFRAMES", description="Timeframes that the service computes"
    )
    resample: Timeframes = Field(
        (),
        validation_alias="FEATURE_RESAMPLE",
        description="Timeframes whose bars the service makes of those of `FEATURE_RESAMPLE_FROM`, such as `5m,1h,1d`; none for none",
    )
    resample_from: str = Field(
        "1m", validation_alias="FEATURE_RESAMPLE_FROM", description="Timeframe of the bars that `FEATURE_RESAMPLE` makes others of"
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
        description="Taken, and without effect: a cycle reads the bars that the feature set's lookback tells, no more and no fewer",
    )
    latest_refresh_seconds: float = Field(
        300,
        ge=0,
        validation_alias="FEATURE_LATEST_REFRESH_SECONDS",
        description="Seconds that `feature_vectors_latest` may be behind new vectors; 0 to leave it alone",
    )
    health_host: str = Field("127.0.0.1", validation_alias="HEALTH_HOST", description="Address of `/health` and `/metrics`")
    health_port: int = Field(8000, ge=0, le=65_535, validation_alias="HEALTH_PORT", description="Their port; 0 for any that is free")

    keys_file: Path | None = Field(
        None,
        validation_alias="ASOF_KEYS_FILE",
        description="File of the keys that a service lets in, which `asof keys` writes; where it is not given, `asof-keys.json`",
    )
    oidc_issuer: str | None = Field(
        None, validation_alias="ASOF_OIDC_ISSUER", description="Issuer whose tokens a service lets in, such as `https://login.example.com`"
    )
    oidc_audience: str | None = Field(
        None, validation_alias="ASOF_OIDC_AUDIENCE", description="Audience that its tokens have to be made for"
    )
    tls_certificate: Path | None = Field(
        None,
        validation_alias="ASOF_TLS_CERTIFICATE",
        description="File of the certificates that a service shows, its own first; TLS is then on",
    )
    tls_key: Path | None = Field(None, validation_alias="ASOF_TLS_KEY", description="File of the key of that certificate")
    audit: Annotated[Literal["all", "refused", "off"], BeforeValidator(_lower)] = Field(
        "all", validation_alias="ASOF_AUDIT", description="Which decisions about who may what are logged: `all`, `refused` ones, or `off`"
    )
    most_body_bytes: int = Field(64 << 20, ge=1024, validation_alias="ASOF_MOST_BODY_BYTES", description="Bytes of the body of a request")
    most_seconds: float = Field(
        60,
        gt=0,
        validation_alias="ASOF_MOST_SECONDS",
        description="Seconds that a request may take to arrive, and to be answered; and each part of an answer, to be taken",
    )
    most_requests: int = Field(
        256, ge=1, validation_alias="ASOF_MOST_REQUESTS", description="Requests at the same time, without those that follow a stream"
    )
    most_rate: float = Field(
        2000,
        ge=0,
        validation_alias="ASOF_MOST_RATE",
        description="Requests a second of each key or token, in the long run; 0 for any number",
    )
    most_instruments: int = Field(10_000, ge=1, validation_alias="ASOF_MOST_INSTRUMENTS", description="Instruments that a request may name")
    most_values: int = Field(
        100_000_000, ge=1, validation_alias="ASOF_MOST_VALUES", description="Rows x features that an answer may have that is not streamed"
    )
    most_days: float = Field(
        0, ge=0, validation_alias="ASOF_MOST_DAYS", description="Days from `from` to `to` of a request for history; 0 for any number"
    )

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
    bars_topic: str = Field("market.ohlcv.v1", validation_alias="OHLCV_TOPIC", description="Topic of bars, which `stream` reads")
    features_topic: str = Field(
        "features.v1",
        validation_alias="FEATURES_TOPIC",
        description="Topic that `stream` publishes vectors to; those of further feature sets go to `<topic>.<version>`",
    )
    allowed_lateness: Annotated[str, AfterValidator(_duration)] = Field(
        "1m",
        validation_alias="ASOF_ALLOWED_LATENESS",
        description="Rows from Kafka that come later than this after they could be known are counted as late; they count all the same",
    )
    kafka_group: str = Field(
        "feature-store", min_length=1, validation_alias="KAFKA_GROUP", description="Consumer group, whose members share the partitions"
    )
    kafka_start: Annotated[str, AfterValidator(_start)] = Field(
        "earliest",
        validation_alias="KAFKA_START",
        description="Where a partition begins that the store has no position of: `earliest`, `latest`, or a time with its zone",
    )
    kafka_security_protocol: str = Field(
        "PLAINTEXT",
        pattern=r"^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)$",
        validation_alias="KAFKA_SECURITY_PROTOCOL",
        description="`PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`",
    )
    kafka_sasl_mechanism: str | None = Field(
        None, validation_alias="KAFKA_SASL_MECHANISM", description="`PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or another of librdkafka's"
    )
    kafka_sasl_username: str | None = Field(None, validation_alias="KAFKA_SASL_USERNAME", description="Who logs in to the brokers")
    kafka_sasl_password: SecretStr | None = Field(None, validation_alias="KAFKA_SASL_PASSWORD", description="Their password")
    kafka_ssl_ca: Path | None = Field(
        None, validation_alias="KAFKA_SSL_CA", description="File of the authorities that brokers' certificates are held to"
    )
    kafka_ssl_certificate: Path | None = Field(
        None, validation_alias="KAFKA_SSL_CERTIFICATE", description="Our certificate, for brokers that ask for one"
    )
    kafka_ssl_key: Path | None = Field(None, validation_alias="KAFKA_SSL_KEY", description="Its key")
    kafka: Properties = Field(
        {},
        validation_alias="KAFKA_PROPERTIES",
        description="Any other property of librdkafka: a table `[kafka]` in asof.toml, `name=value,name=value` in the environment",
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

    @property
    def vector_topics(self) -> dict[str, str]:
        """The topic that the vectors of each feature set of the service are published to."""
        first, *others = self.feature_set_version
        return {first: self.features_topic} | {version: f"{self.features_topic}.{version}" for version in others}

    @property
    def market_calendars(self) -> Calendars:
        """The calendar of each instrument."""
        return Calendars(self.calendars)


def variables() -> dict[str, str]:
    """The environment variable of each setting."""
    return {name: str(field.validation_alias) for name, field in Settings.model_fields.items()}


class ConfigError(AsofError):
    """A setting that cannot be used."""

    exit_code = 2


def load_settings(**given: str) -> Settings:
    """The settings of this folder and environment, and those given. Raises `ConfigError` naming the setting that is wrong."""
    try:
        return Settings(**given)  # type: ignore[arg-type]  # pydantic reads them
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{FILE} is not valid TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        hint = did_you_mean(name, list(Settings.model_fields)) if first["type"] == "extra_forbidden" else ""
        secret = any(word in name.lower() for word in ("password", "kafka.", "properties")) or name in ("kafka", "key", "ASOF_KEY")
        shown = "what is given" if secret else repr(first["input"])
        raise ConfigError(f"setting {name}: {first['msg']}{hint}, not {shown}") from None
