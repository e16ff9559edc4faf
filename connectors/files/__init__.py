"""Read files from a folder, a bucket or a web server: those that are new or changed since they were last loaded.

All that a definition needs is here; `docs/files.md` shows each at work.
"""

from connectors.files.source import FilesSource
from connectors.formats.file_streams import CsvStream, JsonLinesStream, JsonStream, OnBadFile, ParquetStream

__all__ = ["CsvStream", "FilesSource", "JsonLinesStream", "JsonStream", "OnBadFile", "ParquetStream"]
