# Who may do what: all of it. A role that is not here is not granted.

mock_provider "google" {
  source = "./tests/mocks"
}

mock_provider "google" {
  alias           = "planned"
  source          = "./tests/mocks"
  override_during = plan
}

# Nothing is waited for.
mock_provider "time" {}

# Accounts that can be told apart.
override_resource {
  target = google_service_account.parts["bridge"]
  values = { member = "serviceAccount:bridge", email = "bridge" }
}
override_resource {
  target = google_service_account.parts["process"]
  values = { member = "serviceAccount:process", email = "process" }
}
override_resource {
  target = google_service_account.parts["record"]
  values = { member = "serviceAccount:record", email = "record" }
}
override_resource {
  target = google_service_account.parts["gateway"]
  values = { member = "serviceAccount:gateway", email = "gateway" }
}
override_resource {
  target = google_service_account.push["process"]
  values = { member = "serviceAccount:push-process", email = "push-process" }
}
override_resource {
  target = google_service_account.push["record"]
  values = { member = "serviceAccount:push-record", email = "push-record" }
}
override_resource {
  target = google_service_account.builder
  values = { member = "serviceAccount:builder", email = "builder" }
}
override_resource {
  target = google_service_account.scheduler["this"]
  values = { member = "serviceAccount:scheduler", email = "scheduler" }
}

variables {
  project_id      = "test-project"
  region          = "us-central1"
  php_api_url     = "https://php-api.example.com/api"
  php_api_key     = "key"
  redis_url       = "rediss://tebra:password@redis.example.com:6379"
  image_tag       = "v1"
  policy_file     = "../pkg/policy/example.yaml" # roles from Firebase
  enable_gateway  = true
  gateway_origins = ["https://app.example.com"]
  operators       = ["group:ops@example.com"]
}

run "everybody_has_the_least_they_need" {
  command = apply

  assert {
    condition = toset([for m in google_secret_manager_secret_iam_member.readers : "${m.member} ${m.role}"]) == toset([
      for part in ["bridge", "process", "record", "gateway"] : "serviceAccount:${part} roles/secretmanager.secretAccessor"
    ])
    error_message = "secrets are read by others, or otherwise"
  }
  assert {
    condition = toset(keys(google_secret_manager_secret_iam_member.readers)) == toset([
      "redis-url bridge", "redis-url process", "redis-url record", "redis-url gateway",
      "php-api-key process",
      "policy bridge", "policy process", "policy record",
    ])
    error_message = "a secret is read by a part that does not need it"
  }
  assert {
    condition = toset([for m in google_project_iam_member.firebase : "${m.member} ${m.role}"]) == toset([
      "serviceAccount:process roles/firebaseauth.viewer",
      "serviceAccount:gateway roles/firebaseauth.viewer",
    ])
    error_message = "the project's roles are others"
  }
  assert {
    condition = toset([for m in [google_artifact_registry_repository_iam_member.builder, google_storage_bucket_iam_member.builder, google_project_iam_member.builder_logs] : "${m.member} ${m.role}"]) == toset([
      "serviceAccount:builder roles/artifactregistry.writer",
      "serviceAccount:builder roles/storage.objectViewer",
      "serviceAccount:builder roles/logging.logWriter",
    ])
    error_message = "the build's roles are others"
  }
  assert {
    condition     = google_cloud_run_v2_worker_pool.bridge["this"].template[0].service_account == "bridge" && alltrue([for key, s in google_cloud_run_v2_service.functions : s.template[0].service_account == key])
    error_message = "two parts share an account"
  }
}

run "a_push_account_may_invoke_one_service" {
  command = apply

  assert {
    condition = toset([for m in google_cloud_run_v2_service_iam_member.push : "${m.member} ${m.role} ${m.name}"]) == toset([
      "serviceAccount:push-process roles/run.invoker tebra-process",
      "serviceAccount:push-record roles/run.invoker tebra-record",
    ])
    error_message = "a push account may invoke more, or less"
  }
}

run "nobody_but_the_gateway_is_open_to_all" {
  command = apply

  assert {
    condition     = [for m in google_cloud_run_v2_service_iam_member.public : "${m.member} ${m.role} ${m.name}"] == ["allUsers roles/run.invoker tebra-gateway"]
    error_message = "want allUsers on the gateway, and nowhere else"
  }
  assert {
    condition     = alltrue([for m in google_cloud_run_v2_service_iam_member.push : !startswith(m.member, "all")])
    error_message = "a pushed function is open to all"
  }
}

run "topics_are_published_to_by_those_who_do" {
  command = plan
  module {
    source = "./modules/messaging"
  }
  providers = {
    google = google.planned
    time   = time
  }
  variables {
    project_number = "123456789012"
    process        = { endpoint = "https://process.example.com" }
    record         = { endpoint = "https://record.example.com" }
    publishers = {
      requests     = { bridge = "serviceAccount:bridge" }
      dead_letters = { bridge = "serviceAccount:bridge", process = "serviceAccount:process" }
    }
  }

  assert {
    condition = toset(concat(
      [for m in google_pubsub_topic_iam_member.requests_publishers : "${m.member} ${m.role} ${m.topic}"],
      [for m in google_pubsub_topic_iam_member.dead_letters_publishers : "${m.member} ${m.role} ${m.topic}"],
      [for m in google_pubsub_subscription_iam_member.operators : "${m.member} ${m.role} ${m.subscription}"],
      )) == toset([
      "serviceAccount:bridge roles/pubsub.publisher tebra-requests",
      "serviceAccount:bridge roles/pubsub.publisher tebra-dead-letters",
      "serviceAccount:process roles/pubsub.publisher tebra-dead-letters",
      "group:ops@example.com roles/pubsub.subscriber tebra-dead-letters-inspect",
    ])
    error_message = "Pub/Sub's roles are others"
  }
}

run "without_gateway_and_firebase_nobody_reads_accounts" {
  command = plan
  providers = {
    google = google.planned
    time   = time
  }
  variables {
    policy_file     = null
    enable_gateway  = false
    gateway_origins = []
  }

  assert {
    condition     = length(google_project_iam_member.firebase) + length(google_cloud_run_v2_service_iam_member.public) == 0
    error_message = "a role is granted that nobody needs"
  }
  assert {
    condition     = toset(keys(google_secret_manager_secret_iam_member.readers)) == toset(["redis-url bridge", "redis-url process", "redis-url record", "php-api-key process"])
    error_message = "a secret is read by a part that does not need it"
  }
  assert {
    condition     = toset(keys(google_service_account.parts)) == toset(["bridge", "process", "record"])
    error_message = "an account is made for nobody"
  }
}

run "the_scheduler_may_start_the_job_and_nothing_else" {
  command = apply
  variables {
    bridge_mode = "job"
  }

  assert {
    condition     = google_cloud_run_v2_job_iam_member.scheduler["this"].role == "roles/run.invoker" && google_cloud_run_v2_job_iam_member.scheduler["this"].name == "tebra-bridge" && google_cloud_run_v2_job_iam_member.scheduler["this"].member == "serviceAccount:scheduler"
    error_message = "the scheduler can't start the job, or can do more"
  }
}
