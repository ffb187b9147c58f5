"""A store in an object store, such as S3: append-only files as pieces, values by their hash."""
