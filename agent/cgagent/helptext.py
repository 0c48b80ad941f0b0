"""Help as argparse prints it, from a command's declarations. Loaded for `--help`, never for work."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter

from cgagent.parser import Parser


def argument_parser(parser: Parser) -> ArgumentParser:
    """The same command line as an `argparse.ArgumentParser`."""
    copy = ArgumentParser(
        prog=parser.prog,
        description=parser.description,
        epilog=parser.epilog,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for group in parser.groups:
        place = copy if group is parser else copy.add_argument_group(group.title)
        for argument in group.arguments:
            place.add_argument(*argument.names, **argument.keywords)
    return copy


def help_text(parser: Parser) -> str:
    """What `--help` prints."""
    return argument_parser(parser).format_help()
