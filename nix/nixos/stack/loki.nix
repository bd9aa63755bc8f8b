# The configuration of Loki: one tenant for each machine, which is the only name that a receiver can force, and limits
# that fit together, so that a laptop's journal of weeks is taken.
{
  port,
  retention,
  address,
  data,
}:
{
  auth_enabled = true;
  server = {
    http_listen_address = address;
    http_listen_port = port;
    grpc_listen_address = "127.0.0.1";
    log_level = "warn";
  };
  common = {
    path_prefix = data;
    replication_factor = 1;
    instance_addr = "127.0.0.1";
    ring.kvstore.store = "inmemory";
    storage.filesystem = {
      chunks_directory = "${data}/chunks";
      rules_directory = "${data}/rules";
    };
  };
  schema_config.configs = [
    {
      from = "2024-01-01";
      store = "tsdb";
      object_store = "filesystem";
      schema = "v13";
      index = {
        prefix = "index_";
        period = "24h";
      };
    }
  ];
  limits_config = {
    retention_period = retention;
    # An agent that was away sends what its journal kept. Loki refuses older lines for good.
    reject_old_samples_max_age = retention;
    # A clock that is ahead.
    creation_grace_period = "1d";
    unordered_writes = true;
    # A line of the journal may be long; a longer one is cut, because Alloy drops what Loki refuses.
    max_line_size = "256KB";
    max_line_size_truncate = true;
    # A machine that catches up: Alloy repeats what is refused as too much.
    ingestion_rate_mb = 16;
    ingestion_burst_size_mb = 32;
    per_stream_rate_limit = "8MB";
    per_stream_rate_limit_burst = "32MB";
    # One for each unit.
    max_global_streams_per_user = 10000;
  };
  # Loki refuses for good what is behind the newest line of its stream by more than half of this. One line of a clock that
  # is a day ahead must not cost the lines after the clock is set right.
  ingester.max_chunk_age = "50h";
  # Grafana asks for several tenants: `X-Scope-OrgID: a|b`.
  querier = {
    multi_tenant_queries_enabled = true;
    # As long as chunks are in memory.
    query_ingesters_within = "51h";
  };
  compactor = {
    working_directory = "${data}/compactor";
    retention_enabled = true;
    delete_request_store = "filesystem";
  };
  analytics.reporting_enabled = false;
}
