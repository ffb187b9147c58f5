"""Workers on the nodes of a cluster, which another engine such as Dask or Ray has placed.

    engine ── ClusterExecutor ── thread ── Link ══ the cluster's RPC ══ agent ── pool ── workers

The cluster gives *leases*: some room on a node, held by an agent that hosts workers there. Orders
and reports pass between the executor and each agent in batches of bytes. `interface` says what an
adapter to an engine has to provide.
"""
