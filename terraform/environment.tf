# What each program is configured with, one object a program: a test keeps these
# and what the programs read in step. README.md explains the variables.

locals {
  environment = {
    bridge = {
      GOOGLE_CLOUD_PROJECT        = var.project_id
      REQUESTS_TOPIC              = local.topics.requests
      DEAD_LETTERS_TOPIC          = local.topics.dead_letter
      REDIS_CA_CERT               = local.redis_ca_cert
      STREAM_PREFIX               = var.stream_prefix
      POLICY_FILE                 = local.policy_path
      MAX_IN_FLIGHT               = tostring(var.max_in_flight)
      BATCH_SIZE                  = tostring(var.batch_size)
      MAX_REQUEST_BYTES           = tostring(var.max_request_bytes)
      RETENTION                   = "${var.stream_retention_hours}h"
      ANSWER_DEADLINE             = "${var.answer_deadline_minutes}m"
      CLAIM_IDLE                  = "${var.claim_idle_seconds}s"
      LEDGER_TTL                  = "${var.ledger_ttl_hours}h"
      HEALTH_PORT                 = tostring(local.port)
      OTEL_SDK_DISABLED           = tostring(!var.enable_telemetry)
      OTEL_EXPORTER_OTLP_ENDPOINT = local.otlp_endpoint
      OTEL_RESOURCE_ATTRIBUTES    = "cloud.region=${var.region},namespace=${var.name},service.namespace=${var.name}"
      OTEL_TRACES_SAMPLER         = "parentbased_traceidratio"
      OTEL_TRACES_SAMPLER_ARG     = tostring(var.trace_ratio)
    }
    process = {
      FUNCTION_TARGET             = local.functions.process
      GOOGLE_CLOUD_PROJECT        = var.project_id
      REQUESTS_TOPIC              = local.topics.requests
      DEAD_LETTERS_TOPIC          = local.topics.dead_letter
      REDIS_CA_CERT               = local.redis_ca_cert
      STREAM_PREFIX               = var.stream_prefix
      POLICY_FILE                 = local.policy_path
      TEBRA_PHP_API_URL           = var.php_api_url
      TEBRA_PHP_API_AUDIENCE      = var.php_api_audience
      PHP_TIMEOUT                 = "${var.php_timeout_seconds}s"
      RATE_WAIT                   = "${var.rate_wait_seconds}s"
      HANDLER_TIMEOUT             = "${var.handler_timeout_seconds}s"
      ACK_DEADLINE                = "${var.ack_deadline_seconds}s"
      LEDGER_LEASE                = "${var.ledger_lease_seconds}s"
      LEDGER_TTL                  = "${var.ledger_ttl_hours}h"
      LEDGER_REPLICAS             = tostring(var.ledger_replicas)
      OTEL_SDK_DISABLED           = tostring(!var.enable_telemetry)
      OTEL_EXPORTER_OTLP_ENDPOINT = local.otlp_endpoint
      OTEL_RESOURCE_ATTRIBUTES    = "cloud.region=${var.region},namespace=${var.name},service.namespace=${var.name}"
      OTEL_TRACES_SAMPLER         = "parentbased_traceidratio"
      OTEL_TRACES_SAMPLER_ARG     = tostring(var.trace_ratio)
    }
    record = {
      GOOGLE_CLOUD_PROJECT        = var.project_id
      FUNCTION_TARGET             = local.functions.record
      REDIS_CA_CERT               = local.redis_ca_cert
      STREAM_PREFIX               = var.stream_prefix
      POLICY_FILE                 = local.policy_path
      HANDLER_TIMEOUT             = "${var.handler_timeout_seconds}s"
      ACK_DEADLINE                = "${var.ack_deadline_seconds}s"
      LEDGER_LEASE                = "${var.ledger_lease_seconds}s"
      LEDGER_TTL                  = "${var.ledger_ttl_hours}h"
      OTEL_SDK_DISABLED           = tostring(!var.enable_telemetry)
      OTEL_EXPORTER_OTLP_ENDPOINT = local.otlp_endpoint
      OTEL_RESOURCE_ATTRIBUTES    = "cloud.region=${var.region},namespace=${var.name},service.namespace=${var.name}"
      OTEL_TRACES_SAMPLER         = "parentbased_traceidratio"
      OTEL_TRACES_SAMPLER_ARG     = tostring(var.trace_ratio)
    }
    gateway = {
      FUNCTION_TARGET             = "Gateway"
      GOOGLE_CLOUD_PROJECT        = var.project_id
      REDIS_CA_CERT               = local.redis_ca_cert
      STREAM_PREFIX               = var.stream_prefix
      MAX_REQUEST_BYTES           = tostring(var.max_request_bytes)
      RETENTION                   = "${var.stream_retention_hours}h"
      GATEWAY_ORIGINS             = join(",", var.gateway_origins)
      GATEWAY_USER_RATE           = tostring(var.gateway_user_rate)
      GATEWAY_STREAM_TIME         = "${var.gateway_stream_minutes}m"
      GATEWAY_MAX_STREAMS         = tostring(local.gateway_concurrency)
      GATEWAY_MAX_USER_STREAMS    = tostring(var.gateway_max_user_streams)
      OTEL_SDK_DISABLED           = tostring(!var.enable_telemetry)
      OTEL_EXPORTER_OTLP_ENDPOINT = local.otlp_endpoint
      OTEL_RESOURCE_ATTRIBUTES    = "cloud.region=${var.region},namespace=${var.name},service.namespace=${var.name}"
      OTEL_TRACES_SAMPLER         = "parentbased_traceidratio"
      OTEL_TRACES_SAMPLER_ARG     = tostring(var.trace_ratio)
    }
  }

  # Those that come from Secret Manager.
  secret_environment = {
    bridge = {
      REDIS_URL = google_secret_manager_secret_version.redis_url
    }
    process = {
      REDIS_URL              = google_secret_manager_secret_version.redis_url
      TEBRA_INTERNAL_API_KEY = google_secret_manager_secret_version.php_api_key
    }
    record = {
      REDIS_URL = google_secret_manager_secret_version.redis_url
    }
    gateway = {
      REDIS_URL = google_secret_manager_secret_version.redis_url
    }
  }

  port        = 8080
  policy_path = var.policy_file == null ? "" : "${local.policy_dir}/${local.policy_name}"
}
