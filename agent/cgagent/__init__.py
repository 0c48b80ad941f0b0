"""cgagent makes Go services aware of the resources their container really has."""

__version__ = "0.1.0"
