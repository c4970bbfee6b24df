"""To be preloaded: commits a fault while the zygote imports it."""

from crash_places import commit_as_asked

commit_as_asked()
