# What is replaced under its old name has lost its bindings, whatever the state says: they
# must be made anew with it. A binding that is made anew gets the etag below; one that is
# left alone keeps the one it has.

mock_provider "google" {
  source = "./tests/mocks"
}

# Nothing is waited for.
mock_provider "time" {}

variables {
  project_id      = "test-project"
  project_number  = "123456789012"
  region          = "us-central1"
  php_api_url     = "https://php-api.example.com/api"
  php_api_key     = "key"
  redis_url       = "rediss://tebra:password@redis.example.com:6379"
  image_tag       = "v1"
  enable_gateway  = true
  gateway_origins = ["https://app.example.com"]
  operators       = ["group:ops@example.com"]
  process         = { endpoint = "https://process.example.com" }
  record          = { endpoint = "https://record.example.com" }
  publishers = {
    requests     = { bridge = "serviceAccount:bridge" }
    dead_letters = { bridge = "serviceAccount:bridge" }
  }
}

run "topology" {
  command = apply
  module {
    source = "./modules/messaging"
  }
}

run "a_subscription_is_replaced_with_its_bindings" {
  command = apply
  module {
    source = "./modules/messaging"
  }
  plan_options {
    replace = [google_pubsub_subscription.requests, google_pubsub_subscription.inspect]
  }
  override_resource {
    target = google_pubsub_subscription_iam_member.agent_requests
    values = { etag = "anew" }
  }
  override_resource {
    target = google_pubsub_subscription_iam_member.operators
    values = { etag = "anew" }
  }
  override_resource {
    target = google_pubsub_topic_iam_member.agent_dead_letters
    values = { etag = "anew" }
  }

  assert {
    condition     = google_pubsub_subscription_iam_member.agent_requests["pubsub"].etag == "anew"
    error_message = "the agent can't take dead letters off the new subscription: requests that fail are delivered for ever"
  }
  assert {
    condition     = google_pubsub_subscription_iam_member.operators["group:ops@example.com"].etag == "anew"
    error_message = "operators can't read the new subscription"
  }
  assert {
    condition     = google_pubsub_topic_iam_member.agent_dead_letters["pubsub"].etag != "anew"
    error_message = "a binding was made anew whose topic was left alone"
  }
}

run "a_topic_is_replaced_with_its_bindings" {
  command = apply
  module {
    source = "./modules/messaging"
  }
  plan_options {
    replace = [google_pubsub_topic.requests, google_pubsub_topic.dead_letters]
  }
  override_resource {
    target = google_pubsub_topic_iam_member.agent_dead_letters
    values = { etag = "anew with the topic" }
  }
  override_resource {
    target = google_pubsub_topic_iam_member.requests_publishers
    values = { etag = "anew with the topic" }
  }
  override_resource {
    target = google_pubsub_topic_iam_member.dead_letters_publishers
    values = { etag = "anew with the topic" }
  }

  assert {
    condition = alltrue([for m in [
      google_pubsub_topic_iam_member.agent_dead_letters["pubsub"],
      google_pubsub_topic_iam_member.requests_publishers["bridge"],
      google_pubsub_topic_iam_member.dead_letters_publishers["bridge"],
    ] : m.etag == "anew with the topic"])
    error_message = "nobody may publish to the new topic"
  }
}

run "installation" {
  command = apply
}

run "a_service_is_replaced_with_its_bindings" {
  command = apply
  plan_options {
    replace = [
      google_cloud_run_v2_service.functions["process"], google_cloud_run_v2_service.functions["gateway"],
      google_artifact_registry_repository.images, google_storage_bucket.build,
    ]
  }
  override_resource {
    target = google_cloud_run_v2_service_iam_member.push
    values = { etag = "anew" }
  }
  override_resource {
    target = google_cloud_run_v2_service_iam_member.public
    values = { etag = "anew" }
  }
  override_resource {
    target = google_artifact_registry_repository_iam_member.builder
    values = { etag = "anew" }
  }
  override_resource {
    target = google_storage_bucket_iam_member.builder
    values = { etag = "anew" }
  }

  assert {
    condition     = google_cloud_run_v2_service_iam_member.push["process"].etag == "anew" && google_cloud_run_v2_service_iam_member.push["record"].etag != "anew"
    error_message = "the new service refuses every push, or another's binding was made anew"
  }
  assert {
    condition     = google_cloud_run_v2_service_iam_member.public["gateway"].etag == "anew"
    error_message = "no browser reaches the new gateway"
  }
  assert {
    condition     = google_artifact_registry_repository_iam_member.builder.etag == "anew" && google_storage_bucket_iam_member.builder.etag == "anew"
    error_message = "the build can't read the new bucket, or write to the new repository"
  }
}
