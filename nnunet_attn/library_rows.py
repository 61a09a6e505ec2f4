"""The networks of other libraries that have a trainer here, as rows like those of the catalogue."""

from nnunet_attn.catalog import Entry

LIBRARY_ENTRIES: tuple[Entry, ...] = ()
