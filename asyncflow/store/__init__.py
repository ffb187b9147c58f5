"""Everything on disk: values and their refs, blobs in shards, the journal of each run."""
