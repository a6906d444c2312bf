# What is refused before anything is made: a run for each rule, beside one that is
# just admitted.

mock_provider "google" {
  source          = "./tests/mocks"
  override_during = plan
}

# Nothing is waited for.
mock_provider "time" {}

variables {
  project_id  = "test-project"
  region      = "us-central1"
  php_api_url = "https://php-api.example.com/api"
  php_api_key = "key"
  redis_url   = "rediss://tebra:password@redis.example.com:6379"
  image_tag   = "v1"
}

# --- names ----------------------------------------------------------------------

run "reject_a_project_number" {
  command = plan
  variables {
    project_id = "123456789012"
  }
  expect_failures = [var.project_id]
}

run "reject_a_zone" {
  command = plan
  variables {
    region = "us-central1-a"
  }
  expect_failures = [var.region]
}

run "reject_an_api_in_the_clear" {
  command = plan
  variables {
    php_api_url = "http://php-api.example.com/api"
  }
  expect_failures = [var.php_api_url]
}

run "reject_an_empty_key" {
  command = plan
  variables {
    php_api_key = ""
  }
  expect_failures = [var.php_api_key]
}

run "reject_a_key_with_a_line_end" {
  command = plan
  variables {
    php_api_key = "key\n"
  }
  expect_failures = [var.php_api_key]
}

run "reject_a_name_whose_accounts_are_too_long" {
  command = plan
  variables {
    name = "tebra-staging-eu12"
  }
  expect_failures = [var.name]
}

run "reject_a_name_of_one_letter" {
  command = plan
  variables {
    name = "t"
  }
  expect_failures = [var.name]
}

run "reject_a_name_that_ends_with_a_hyphen" {
  command = plan
  variables {
    name = "tebra-"
  }
  expect_failures = [var.name]
}

run "admit_the_longest_name" {
  command = plan
  variables {
    name = "tebra-staging-eu1"
  }
}

run "reject_a_label_in_capitals" {
  command = plan
  variables {
    labels = { Team = "web" }
  }
  expect_failures = [var.labels]
}

run "reject_an_image_tag_with_a_slash" {
  command = plan
  variables {
    image_tag = "a/b"
  }
  expect_failures = [var.image_tag]
}

run "reject_a_prefix_that_begins_with_a_colon" {
  command = plan
  variables {
    stream_prefix = ":tebra"
  }
  expect_failures = [var.stream_prefix]
}

run "admit_a_prefix_in_braces" {
  command = plan
  variables {
    stream_prefix = "{tebra}"
  }
}

# --- Redis ----------------------------------------------------------------------

run "reject_no_redis_at_all" {
  command = plan
  variables {
    redis_url = null
  }
  expect_failures = [var.redis_url]
}

run "reject_two_redises" {
  command = plan
  variables {
    create_redis = true
  }
  expect_failures = [var.redis_url]
}

run "reject_a_redis_url_of_another_kind" {
  command = plan
  variables {
    redis_url = "redis.example.com:6379"
  }
  expect_failures = [var.redis_url]
}

run "reject_certificates_that_are_none" {
  command = plan
  variables {
    redis_ca_cert = "ca.pem"
  }
  expect_failures = [var.redis_ca_cert]
}

run "reject_certificates_for_memorystore" {
  command = plan
  variables {
    create_redis  = true
    redis_url     = null
    redis_ca_cert = "-----BEGIN CERTIFICATE-----"
  }
  expect_failures = [var.redis_ca_cert]
}

run "reject_an_unknown_tier" {
  command = plan
  variables {
    redis_tier = "GOLD"
  }
  expect_failures = [var.redis_tier]
}

run "reject_half_a_gigabyte" {
  command = plan
  variables {
    redis_memory_gb = 0.5
  }
  expect_failures = [var.redis_memory_gb]
}

run "admit_300_gigabytes" {
  command = plan
  variables {
    create_redis    = true
    redis_url       = null
    redis_memory_gb = 300
  }
}

run "reject_an_old_redis" {
  command = plan
  variables {
    redis_version = "REDIS_6_X"
  }
  expect_failures = [var.redis_version]
}

run "reject_replicas_that_memorystore_has_not" {
  command = plan
  variables {
    create_redis    = true
    redis_url       = null
    ledger_replicas = 2
  }
  expect_failures = [var.ledger_replicas]
}

run "reject_replicas_of_a_basic_instance" {
  command = plan
  variables {
    create_redis    = true
    redis_url       = null
    redis_tier      = "BASIC"
    ledger_replicas = 1
  }
  expect_failures = [var.ledger_replicas]
}

run "admit_the_one_replica_of_memorystore" {
  command = plan
  variables {
    create_redis    = true
    redis_url       = null
    ledger_replicas = 1
  }
}

run "reject_11_replicas" {
  command = plan
  variables {
    ledger_replicas = 11
  }
  expect_failures = [var.ledger_replicas]
}

# --- what is deployed -----------------------------------------------------------

run "reject_a_policy_that_is_not_there" {
  command = plan
  variables {
    policy_file = "no-such-file.yaml"
  }
  expect_failures = [var.policy_file]
}

run "reject_a_policy_that_is_none" {
  command = plan
  variables {
    policy_file = "../go.mod"
  }
  expect_failures = [var.policy_file]
}

run "reject_a_secret_version_of_nothing" {
  command = plan
  variables {
    secret_versions = { php_api_key = 0 }
  }
  expect_failures = [var.secret_versions]
}

run "admit_a_raised_secret_version" {
  command = plan
  variables {
    secret_versions = { php_api_key = 2 }
  }
}

run "reject_a_third_mode" {
  command = plan
  variables {
    bridge_mode = "cron"
  }
  expect_failures = [var.bridge_mode]
}

run "reject_no_bridge" {
  command = plan
  variables {
    bridge_instances = 0
  }
  expect_failures = [var.bridge_instances]
}

run "admit_20_bridges" {
  command = plan
  variables {
    bridge_instances = 20
  }
}

run "reject_a_drain_that_does_not_divide_an_hour" {
  command = plan
  variables {
    drain_minutes = 7
  }
  expect_failures = [var.drain_minutes]
}

run "admit_a_drain_every_half_hour" {
  command = plan
  variables {
    bridge_mode   = "job"
    drain_minutes = 30
  }
}

run "reject_no_requests_in_flight" {
  command = plan
  variables {
    max_in_flight = 0
  }
  expect_failures = [var.max_in_flight]
}

run "reject_a_batch_over_1000" {
  command = plan
  variables {
    batch_size = 1001
  }
  expect_failures = [var.batch_size]
}

run "admit_a_batch_of_1000" {
  command = plan
  variables {
    batch_size = 1000
  }
}

run "reject_requests_over_8_mib" {
  command = plan
  variables {
    max_request_bytes = 8388609
  }
  expect_failures = [var.max_request_bytes]
}

run "admit_requests_of_8_mib" {
  command = plan
  variables {
    max_request_bytes = 8388608
  }
}

run "reject_1001_at_a_time" {
  command = plan
  variables {
    process_concurrency = 1001
  }
  expect_failures = [var.process_concurrency]
}

run "reject_more_warm_instances_than_instances" {
  command = plan
  variables {
    process_max_instances = 2
    process_min_instances = 3
  }
  expect_failures = [var.process_min_instances]
}

run "admit_all_instances_warm" {
  command = plan
  variables {
    process_max_instances = 2
    process_min_instances = 2
  }
}

run "reject_no_instances" {
  command = plan
  variables {
    process_max_instances = 0
  }
  expect_failures = [var.process_max_instances]
}

run "reject_no_recorder" {
  command = plan
  variables {
    record_max_instances = 0
  }
  expect_failures = [var.record_max_instances]
}

# --- deadlines, each within the next --------------------------------------------

run "reject_a_handler_that_has_no_time_to_look_up_roles" {
  command = plan
  variables {
    handler_timeout_seconds = 80
  }
  expect_failures = [var.handler_timeout_seconds]
}

run "admit_a_handler_that_has_just_time" {
  command = plan
  variables {
    handler_timeout_seconds = 81
  }
}

run "reject_a_push_as_long_as_the_handler" {
  command = plan
  variables {
    ack_deadline_seconds = 90
  }
  expect_failures = [var.ack_deadline_seconds]
}

run "admit_a_push_just_longer_than_the_handler" {
  command = plan
  variables {
    ack_deadline_seconds = 91
  }
}

run "reject_a_push_over_600_s" {
  command = plan
  variables {
    ack_deadline_seconds = 601
    ledger_lease_seconds = 900
  }
  expect_failures = [var.ack_deadline_seconds]
}

run "reject_a_lease_as_long_as_a_push" {
  command = plan
  variables {
    ledger_lease_seconds = 120
  }
  expect_failures = [var.ledger_lease_seconds]
}

run "admit_a_lease_just_longer_than_a_push" {
  command = plan
  variables {
    ledger_lease_seconds = 121
  }
}

run "reject_a_lease_as_long_as_the_backoff" {
  command = plan
  variables {
    min_backoff_seconds  = 10
    max_backoff_seconds  = 60
    max_attempts         = 5
    ledger_lease_seconds = 130
  }
  expect_failures = [var.ledger_lease_seconds]
}

run "admit_a_lease_just_shorter_than_the_backoff" {
  command = plan
  variables {
    min_backoff_seconds  = 10
    max_backoff_seconds  = 61
    max_attempts         = 5
    ledger_lease_seconds = 130
  }
}

run "reject_no_time_to_call" {
  command = plan
  variables {
    php_timeout_seconds = 0
  }
  expect_failures = [var.php_timeout_seconds]
}

run "reject_no_time_to_wait_for_a_turn" {
  command = plan
  variables {
    rate_wait_seconds = 0
  }
  expect_failures = [var.rate_wait_seconds]
}

run "reject_a_ledger_that_forgets_before_pubsub" {
  command = plan
  variables {
    request_retention_hours = 48
  }
  expect_failures = [var.ledger_ttl_hours]
}

run "admit_a_ledger_that_just_remembers" {
  command = plan
  variables {
    request_retention_hours = 47
  }
}

run "reject_a_ledger_that_forgets_before_the_streams" {
  command = plan
  variables {
    stream_retention_hours = 49
  }
  expect_failures = [var.ledger_ttl_hours]
}

run "reject_a_ledger_of_a_day" {
  command = plan
  variables {
    ledger_ttl_hours        = 24
    request_retention_hours = 12
  }
  expect_failures = [var.ledger_ttl_hours]
}

run "reject_an_answer_before_the_last_attempt" {
  command = plan
  variables {
    answer_deadline_minutes = 60
  }
  expect_failures = [var.answer_deadline_minutes]
}

run "admit_an_answer_just_after_the_last_attempt" {
  command = plan
  variables {
    answer_deadline_minutes = 61
  }
}

run "reject_an_answer_before_a_silent_bridges_entries_are_taken" {
  command = plan
  variables {
    claim_idle_seconds = 7200
  }
  expect_failures = [var.answer_deadline_minutes]
}

run "reject_entries_that_are_gone_before_they_are_swept" {
  command = plan
  variables {
    stream_retention_hours = 1
  }
  expect_failures = [var.stream_retention_hours]
}

run "reject_no_time_for_a_silent_bridge" {
  command = plan
  variables {
    claim_idle_seconds = 0
  }
  expect_failures = [var.claim_idle_seconds]
}

run "reject_4_attempts" {
  command = plan
  variables {
    max_attempts = 4
  }
  expect_failures = [var.max_attempts]
}

run "admit_5_attempts" {
  command = plan
  variables {
    max_attempts        = 5
    min_backoff_seconds = 60
  }
}

run "reject_101_attempts" {
  command = plan
  variables {
    max_attempts            = 101
    answer_deadline_minutes = 6000
    stream_retention_hours  = 110
    ledger_ttl_hours        = 120
  }
  expect_failures = [var.max_attempts]
}

run "admit_100_attempts" {
  command = plan
  variables {
    max_attempts            = 100
    answer_deadline_minutes = 1440
    stream_retention_hours  = 48
  }
}

run "reject_a_shortest_backoff_over_the_longest" {
  command = plan
  variables {
    min_backoff_seconds = 601
  }
  expect_failures = [var.min_backoff_seconds]
}

run "reject_half_a_second_of_backoff" {
  command = plan
  variables {
    min_backoff_seconds = 0.5
  }
  expect_failures = [var.min_backoff_seconds]
}

run "reject_a_backoff_over_600_s" {
  command = plan
  variables {
    max_backoff_seconds = 601
  }
  expect_failures = [var.max_backoff_seconds]
}

run "reject_32_days_of_requests" {
  command = plan
  variables {
    request_retention_hours = 745
    ledger_ttl_hours        = 800
  }
  expect_failures = [var.request_retention_hours]
}

run "reject_32_days_of_dead_letters" {
  command = plan
  variables {
    dead_letter_retention_days = 32
  }
  expect_failures = [var.dead_letter_retention_days]
}

# --- the gateway ----------------------------------------------------------------

run "reject_a_wildcard_origin" {
  command = plan
  variables {
    enable_gateway  = true
    gateway_origins = ["https://*.example.com"]
  }
  expect_failures = [var.gateway_origins]
}

run "reject_an_origin_with_a_path" {
  command = plan
  variables {
    enable_gateway  = true
    gateway_origins = ["https://app.example.com/"]
  }
  expect_failures = [var.gateway_origins]
}

run "reject_origins_without_a_gateway" {
  command = plan
  variables {
    gateway_origins = ["https://app.example.com"]
  }
  expect_failures = [var.gateway_origins]
}

run "admit_an_origin_with_a_port" {
  command = plan
  variables {
    enable_gateway  = true
    gateway_origins = ["http://localhost:5173"]
  }
}

run "reject_a_stream_of_an_hour" {
  command = plan
  variables {
    gateway_stream_minutes = 60
  }
  expect_failures = [var.gateway_stream_minutes]
}

run "admit_a_stream_of_59_minutes" {
  command = plan
  variables {
    gateway_stream_minutes = 59
  }
}

run "reject_1001_requests_a_minute" {
  command = plan
  variables {
    gateway_user_rate = 1001
  }
  expect_failures = [var.gateway_user_rate]
}

run "reject_no_gateway_instances" {
  command = plan
  variables {
    gateway_max_instances = 0
  }
  expect_failures = [var.gateway_max_instances]
}

run "reject_no_streams_for_a_user" {
  command = plan
  variables {
    gateway_max_user_streams = 0
  }
  expect_failures = [var.gateway_max_user_streams]
}

# --- network, people, protection ------------------------------------------------

run "reject_a_subnetwork_by_its_name" {
  command = plan
  variables {
    subnetwork = "default"
  }
  expect_failures = [var.subnetwork]
}

run "reject_a_subnetwork_elsewhere" {
  command = plan
  variables {
    subnetwork = "projects/p/regions/europe-west1/subnetworks/s"
  }
  expect_failures = [var.subnetwork]
}

run "reject_a_subnetwork_for_memorystore" {
  command = plan
  variables {
    create_redis = true
    redis_url    = null
    subnetwork   = "projects/p/regions/us-central1/subnetworks/s"
  }
  expect_failures = [var.subnetwork]
}

run "reject_a_small_range" {
  command = plan
  variables {
    subnet_range = "10.0.0.0/27"
  }
  expect_failures = [var.subnet_range]
}

run "admit_the_smallest_range" {
  command = plan
  variables {
    subnet_range = "10.0.0.0/26"
  }
}

run "reject_everybody_as_an_operator" {
  command = plan
  variables {
    operators = ["allAuthenticatedUsers"]
  }
  expect_failures = [var.operators]
}

run "reject_a_key_elsewhere" {
  command = plan
  variables {
    kms_key = "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/k"
  }
  expect_failures = [var.kms_key]
}

run "reject_101_origins" {
  command = plan
  variables {
    enable_gateway  = true
    gateway_origins = [for i in range(101) : "https://app${i}.example.com"]
  }
  expect_failures = [var.gateway_origins]
}

# --- both ends of what is admitted ------------------------------------------------

run "admit_the_most_of_everything" {
  command = plan
  variables {
    project_id                 = "a23456789-123456789-123456789z"
    region                     = "northamerica-northeast1"
    redis_version              = "REDIS_7_0"
    ledger_replicas            = 10
    max_in_flight              = 1000000
    process_concurrency        = 1000
    process_max_instances      = 100
    process_min_instances      = 100
    record_max_instances       = 100
    ack_deadline_seconds       = 600
    ledger_lease_seconds       = 601
    answer_deadline_minutes    = 150
    request_retention_hours    = 744
    ledger_ttl_hours           = 745
    dead_letter_retention_days = 31
    enable_gateway             = true
    gateway_origins            = [for i in range(100) : "https://app${i}.example.com"]
    gateway_user_rate          = 1000
    gateway_max_instances      = 100
    gateway_max_user_streams   = 1000
    operators                  = ["user:a@example.com", "domain:example.com", "principal://iam.googleapis.com/locations/global/workforcePools/p/subject/s"]
    trace_ratio                = 1
    alert_lag_seconds          = 86400
    alert_in_flight_minutes    = 150
    alert_error_ratio          = 0.99
    audit_retention_days       = 3650
  }
}

run "admit_the_least_of_everything" {
  command = plan
  variables {
    project_id                 = "abcde1"
    php_api_key                = "k"
    create_redis               = true
    redis_url                  = null
    redis_tier                 = "BASIC"
    redis_memory_gb            = 1
    stream_prefix              = "t"
    name                       = "tb"
    bridge_mode                = "job"
    drain_minutes              = 3
    max_in_flight              = 1
    batch_size                 = 1
    max_request_bytes          = 1024
    claim_idle_seconds         = 1
    process_concurrency        = 1
    process_max_instances      = 1
    process_min_instances      = 0
    record_max_instances       = 1
    php_timeout_seconds        = 1
    rate_wait_seconds          = 1
    handler_timeout_seconds    = 8
    ack_deadline_seconds       = 10
    ledger_lease_seconds       = 14
    ledger_ttl_hours           = 25
    min_backoff_seconds        = 1
    max_backoff_seconds        = 600
    request_retention_hours    = 1
    stream_retention_hours     = 2
    dead_letter_retention_days = 1
    enable_gateway             = true
    gateway_user_rate          = 1
    gateway_max_instances      = 1
    gateway_stream_minutes     = 1
    gateway_max_user_streams   = 1
    trace_ratio                = 0
    alert_lag_seconds          = 10
    alert_in_flight_minutes    = 1
    alert_error_ratio          = 0.01
    audit_retention_days       = 1
  }
}
