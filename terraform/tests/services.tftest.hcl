# What runs where, how much of it, and with which deadlines.

mock_provider "google" {
  source = "./tests/mocks"
}

# Knows at plan what would be known after an apply.
mock_provider "google" {
  alias           = "planned"
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

# Images are read once the registry is there, so it is made first.
run "functions_are_reached_from_inside_only" {
  command = apply

  assert {
    condition     = toset(keys(google_cloud_run_v2_service.functions)) == toset(["process", "record"])
    error_message = "want two services without the gateway"
  }
  assert {
    condition     = alltrue([for s in google_cloud_run_v2_service.functions : s.ingress == "INGRESS_TRAFFIC_INTERNAL_ONLY" && !s.invoker_iam_disabled])
    error_message = "a function can be reached from outside, or without IAM"
  }
  assert {
    condition     = alltrue([for s in google_cloud_run_v2_service.functions : s.template[0].timeout == "120s"])
    error_message = "Cloud Run must give a request as long as Pub/Sub waits"
  }
  assert {
    condition     = google_cloud_run_v2_service.functions["process"].template[0].max_instance_request_concurrency == 20 && google_cloud_run_v2_service.functions["process"].template[0].scaling[0].max_instance_count == 5
    error_message = "concurrency and instances of ProcessRequest, which bound the load on the API, are not the variables'"
  }
  assert {
    condition     = alltrue([for s in google_cloud_run_v2_service.functions : can(regex("@sha256:[0-9a-f]{64}$", s.template[0].containers[0].image))])
    error_message = "a service is not pinned by digest"
  }
  assert {
    condition     = alltrue([for s in google_cloud_run_v2_service.functions : s.template[0].vpc_access[0].egress == "PRIVATE_RANGES_ONLY"])
    error_message = "a function can't reach Redis"
  }
}

run "load_on_the_api_comes_from_variables" {
  command = plan
  providers = {
    google = google.planned
    time   = time
  }
  variables {
    process_concurrency   = 4
    process_max_instances = 2
    process_min_instances = 1
    record_max_instances  = 3
  }

  assert {
    condition     = google_cloud_run_v2_service.functions["process"].template[0].max_instance_request_concurrency == 4
    error_message = "process_concurrency does nothing"
  }
  assert {
    condition     = google_cloud_run_v2_service.functions["process"].template[0].scaling[0].max_instance_count == 2 && google_cloud_run_v2_service.functions["process"].template[0].scaling[0].min_instance_count == 1
    error_message = "process_max_instances or process_min_instances does nothing"
  }
  assert {
    condition     = google_cloud_run_v2_service.functions["record"].template[0].scaling[0].max_instance_count == 3
    error_message = "record_max_instances does nothing"
  }
}

run "the_bridge_is_a_pool_with_one_instance" {
  command = plan
  providers = {
    google = google.planned
    time   = time
  }

  assert {
    condition     = google_cloud_run_v2_worker_pool.bridge["this"].scaling[0].manual_instance_count == 1
    error_message = "want one bridge"
  }
  assert {
    condition     = google_cloud_run_v2_worker_pool.bridge["this"].template[0].containers[0].args == tolist(["run"])
    error_message = "the pool does not run for ever"
  }
  assert {
    condition     = google_cloud_run_v2_worker_pool.bridge["this"].template[0].containers[0].liveness_probe[0].http_get[0].path == "/healthz"
    error_message = "liveness must be that it is pulling"
  }
  assert {
    condition     = google_cloud_run_v2_worker_pool.bridge["this"].template[0].containers[0].startup_probe[0].failure_threshold * google_cloud_run_v2_worker_pool.bridge["this"].template[0].containers[0].startup_probe[0].period_seconds == 240
    error_message = "a start may take 240 s: the way into the network does"
  }
  assert {
    condition     = length(google_cloud_run_v2_worker_pool.bridge["this"].template[0].vpc_access[0].network_interfaces) == 1
    error_message = "want Direct VPC egress"
  }
  assert {
    condition     = length(google_cloud_run_v2_job.bridge) + length(google_cloud_scheduler_job.bridge) == 0
    error_message = "a pool has no schedule"
  }
}

run "the_bridge_can_be_a_job_that_never_meets_itself" {
  command = plan
  providers = {
    google = google.planned
    time   = time
  }
  variables {
    bridge_mode = "job"
  }

  assert {
    condition     = length(google_cloud_run_v2_worker_pool.bridge) == 0
    error_message = "want no pool"
  }
  assert {
    condition     = google_cloud_scheduler_job.bridge["this"].schedule == "*/5 * * * *" && google_cloud_scheduler_job.bridge["this"].retry_config[0].retry_count == 0
    error_message = "want a start every five minutes, and never a second one"
  }
  assert {
    condition     = google_cloud_run_v2_job.bridge["this"].template[0].template[0].timeout == "240s" && google_cloud_run_v2_job.bridge["this"].template[0].template[0].max_retries == 0 && google_cloud_run_v2_job.bridge["this"].template[0].task_count == 1
    error_message = "a drain must have ended before the next begins"
  }
  assert {
    condition     = google_cloud_run_v2_job.bridge["this"].template[0].template[0].containers[0].args == tolist(["drain", "--timeout", "210s"])
    error_message = "a drain must end by itself, before the platform ends it"
  }
  assert {
    condition     = contains(keys(google_project_service.apis), "cloudscheduler.googleapis.com")
    error_message = "the scheduler's API is not enabled"
  }
}

run "the_gateway_is_an_option" {
  command = plan
  providers = {
    google = google.planned
    time   = time
  }
  variables {
    enable_gateway  = true
    gateway_origins = ["https://app.example.com", "https://other.example.com"]
  }

  assert {
    condition     = google_cloud_run_v2_service.functions["gateway"].ingress == "INGRESS_TRAFFIC_ALL" && google_cloud_run_v2_service.functions["gateway"].template[0].timeout == "3600s"
    error_message = "browsers can't reach it, or not for as long as an event stream lasts"
  }
  assert {
    condition     = local.environment.gateway.GATEWAY_ORIGINS == "https://app.example.com,https://other.example.com"
    error_message = "the origins are not passed on"
  }
  assert {
    condition     = tonumber(local.environment.gateway.GATEWAY_MAX_STREAMS) <= google_cloud_run_v2_service.functions["gateway"].template[0].max_instance_request_concurrency
    error_message = "it takes more streams than Cloud Run gives it"
  }
  assert {
    condition     = google_cloud_run_v2_service.functions["process"].ingress == "INGRESS_TRAFFIC_INTERNAL_ONLY"
    error_message = "the gateway opens others"
  }
}

run "secrets_are_pinned_and_never_plain" {
  command = plan
  providers = {
    google = google.planned
    time   = time
  }

  assert {
    condition = alltrue([
      for s in google_cloud_run_v2_service.functions : alltrue([
        for e in s.template[0].containers[0].env : e.value_source[0].secret_key_ref[0].version == "7" if length(e.value_source) > 0
      ])
    ])
    error_message = "a secret is not pinned to its version"
  }
  assert {
    condition = toset([
      for e in google_cloud_run_v2_service.functions["process"].template[0].containers[0].env : e.name if length(e.value_source) > 0
    ]) == toset(["REDIS_URL", "TEBRA_INTERNAL_API_KEY"])
    error_message = "ProcessRequest's secrets are others"
  }
  assert {
    condition = toset([
      for e in google_cloud_run_v2_worker_pool.bridge["this"].template[0].containers[0].env : e.name if length(e.value_source) > 0
    ]) == toset(["REDIS_URL"])
    error_message = "the bridge's secrets are others"
  }
  assert {
    condition     = google_secret_manager_secret_version.redis_url.deletion_policy == "DISABLE" && google_secret_manager_secret_version.php_api_key.deletion_policy == "DISABLE"
    error_message = "there is no way back to a secret's former version"
  }
}

run "the_policy_file_is_mounted_where_it_is_read" {
  command = plan
  providers = {
    google = google.planned
    time   = time
  }
  variables {
    policy_file = "../pkg/policy/example.yaml"
  }

  assert {
    condition     = local.environment.bridge.POLICY_FILE == "/etc/tebra/policy.yaml" && local.environment.process.POLICY_FILE == "/etc/tebra/policy.yaml"
    error_message = "POLICY_FILE is another"
  }
  assert {
    condition = alltrue([
      for s in google_cloud_run_v2_service.functions :
      s.template[0].containers[0].volume_mounts[0].mount_path == "/etc/tebra" && s.template[0].volumes[0].secret[0].items[0].path == "policy.yaml"
    ])
    error_message = "a function can't read the policy"
  }
  assert {
    condition     = google_cloud_run_v2_worker_pool.bridge["this"].template[0].volumes[0].secret[0].items[0].version == "7"
    error_message = "the bridge's policy is not pinned"
  }
  assert {
    condition     = contains(keys(google_project_service.apis), "identitytoolkit.googleapis.com")
    error_message = "roles come from Firebase, whose API is not enabled"
  }
}

run "without_a_policy_file_nothing_is_mounted" {
  command = plan
  providers = {
    google = google.planned
    time   = time
  }

  assert {
    condition     = alltrue([for s in google_cloud_run_v2_service.functions : length(s.template[0].volumes) == 0]) && local.environment.process.POLICY_FILE == ""
    error_message = "a policy is mounted that does not exist"
  }
}

run "redis_is_made_with_tls_auth_and_noeviction" {
  command = plan
  providers = {
    google = google.planned
    time   = time
  }
  variables {
    create_redis = true
    redis_url    = null
  }

  assert {
    condition = (google_redis_instance.this["this"].transit_encryption_mode == "SERVER_AUTHENTICATION"
    && google_redis_instance.this["this"].auth_enabled && google_redis_instance.this["this"].redis_configs["maxmemory-policy"] == "noeviction")
    error_message = "want TLS, AUTH and noeviction"
  }
  assert {
    condition     = google_redis_instance.this["this"].tier == "STANDARD_HA" && google_redis_instance.this["this"].deletion_protection
    error_message = "what holds data must survive a node, and an accident"
  }
  assert {
    condition     = google_redis_instance.this["this"].connect_mode == "DIRECT_PEERING"
    error_message = "a private service connection may refuse to be destroyed"
  }
  assert {
    condition     = google_redis_instance.this["this"].persistence_config[0].persistence_mode == "DISABLED"
    error_message = "a snapshot would have changes made again"
  }
  assert {
    condition     = startswith(local.environment.process.REDIS_CA_CERT, "-----BEGIN CERTIFICATE-----")
    error_message = "its private certificates are not passed on"
  }
  assert {
    condition     = output.redis == "10.1.2.3:6378" && output.redis_ca_cert == local.environment.process.REDIS_CA_CERT
    error_message = "its address or its authority is not told"
  }
}

run "an_existing_redis_and_subnetwork_are_used" {
  command = plan
  providers = {
    google = google.planned
    time   = time
  }
  variables {
    subnetwork    = "projects/host/regions/us-central1/subnetworks/apps"
    redis_ca_cert = "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----"
  }

  assert {
    condition     = length(google_redis_instance.this) + length(google_compute_network.this) + length(google_compute_subnetwork.run) == 0
    error_message = "something is made that is there"
  }
  assert {
    condition     = google_cloud_run_v2_worker_pool.bridge["this"].template[0].vpc_access[0].network_interfaces[0].subnetwork == "projects/host/regions/us-central1/subnetworks/apps"
    error_message = "the bridge sends from elsewhere"
  }
  assert {
    condition     = local.environment.bridge.REDIS_CA_CERT == var.redis_ca_cert
    error_message = "redis_ca_cert is not passed on"
  }
}

run "a_given_tag_builds_nothing" {
  command = plan
  providers = {
    google = google.planned
    time   = time
  }

  assert {
    condition     = length(terraform_data.agents) == 0 && length(google_logging_project_bucket_config.audit.cmek_settings) == 0
    error_message = "gcloud is needed where the first apply is over, or a key that there is not"
  }
  assert {
    condition     = length(terraform_data.images) == 0 && data.google_artifact_registry_docker_image.images["bridge"].image_name == "bridge:v1"
    error_message = "with image_tag the images are CI's"
  }
}

run "without_a_tag_the_source_is_built" {
  command = plan
  providers = {
    google = google.planned
    time   = time
  }
  variables {
    image_tag = null
  }

  assert {
    condition     = toset(local.agents) == toset(["pubsub"])
    error_message = "a first apply grants to Pub/Sub's agent, which must be there"
  }
  assert {
    condition     = can(regex("^src-[0-9a-f]{16}$", terraform_data.images["this"].input))
    error_message = "the tag is no hash of the source"
  }
  assert {
    condition     = length([for f in local.source_files : f if endswith(f, ".go")]) > 50 && contains(local.source_files, "go.mod") && contains(local.source_files, "cloudbuild.yaml")
    error_message = "the hash leaves out what is built"
  }
  assert {
    condition     = alltrue([for f in local.source_files : !startswith(f, "terraform/")])
    error_message = "a change of the deployment alone must not build anew"
  }
}

run "one_key_encrypts_everything" {
  command = plan
  providers = {
    google = google.planned
    time   = time
  }
  variables {
    kms_key      = "projects/test-project/locations/us-central1/keyRings/ring/cryptoKeys/key"
    create_redis = true
    redis_url    = null
  }

  assert {
    condition     = google_artifact_registry_repository.images.kms_key_name == var.kms_key && google_redis_instance.this["this"].customer_managed_key == var.kms_key && google_storage_bucket.build.encryption[0].default_kms_key_name == var.kms_key
    error_message = "registry, Redis or bucket is not encrypted with the key"
  }
  assert {
    condition     = google_logging_project_bucket_config.audit.cmek_settings[0].kms_key_name == var.kms_key
    error_message = "the audit log is not encrypted with the key"
  }
  assert {
    condition     = toset(local.agents) == toset(["pubsub", "secretmanager", "artifactregistry", "redis"]) && length(terraform_data.agents) == 1
    error_message = "an agent that must use the key may not be there yet"
  }
  assert {
    condition     = alltrue([for s in google_secret_manager_secret.this : s.replication[0].user_managed[0].replicas[0].customer_managed_encryption[0].kms_key_name == var.kms_key])
    error_message = "a secret is not encrypted with the key"
  }
  assert {
    condition     = toset(keys(google_kms_crypto_key_iam_member.agents)) == toset(["pubsub", "secretmanager", "artifactregistry", "storage", "logging", "redis"])
    error_message = "an agent may not use the key"
  }
}

run "deletion_protection_can_be_switched_off" {
  command = plan
  providers = {
    google = google.planned
    time   = time
  }
  variables {
    create_redis        = true
    redis_url           = null
    deletion_protection = false
  }

  assert {
    condition     = !google_redis_instance.this["this"].deletion_protection && google_logging_project_bucket_config.audit.deletion_policy == "DELETE"
    error_message = "destroy could never take it away"
  }
}

run "names_and_labels_are_the_installations" {
  command = plan
  providers = {
    google = google.planned
    time   = time
  }
  variables {
    name   = "tebra-staging"
    labels = { team = "web" }
  }

  assert {
    condition     = local.environment.bridge.REQUESTS_TOPIC == "tebra-staging-requests" && local.environment.process.DEAD_LETTERS_TOPIC == "tebra-staging-dead-letters"
    error_message = "two installations would share a topic"
  }
  assert {
    condition     = module.messaging.requests_topic == local.environment.bridge.REQUESTS_TOPIC && module.messaging.dead_letters_topic == local.environment.bridge.DEAD_LETTERS_TOPIC
    error_message = "the bridge publishes to topics that are not made"
  }
  assert {
    condition     = local.labels == { app = "tebra-staging", managed-by = "terraform", team = "web" }
    error_message = "labels are lost"
  }
}
