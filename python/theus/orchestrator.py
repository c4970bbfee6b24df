"""A module of the Rust Theus: importing it fails, and says what to use instead."""

from .gone import refuse_module

refuse_module(__name__)
