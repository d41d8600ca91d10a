"""The command `asof`: a file for each command, listed in `asof.cli.app`."""


def main() -> None:
    """Run the command line."""
    from asof.cli.app import run  # noqa: PLC0415  # Typer and Rich load only when the command runs

    run()
