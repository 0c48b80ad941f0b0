"""Support for tests: trees of kernel files, the readers of env files, writers that are killed."""
