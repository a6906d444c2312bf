locals {
  console = "https://console.cloud.google.com"
  run     = { for key, service in google_cloud_run_v2_service.functions : key => "${local.console}/run/detail/${var.region}/${service.name}?project=${var.project_id}" }
}

output "console" {
  description = "Where to look in Google's console."
  value = merge(local.run, {
    bridge = (var.bridge_mode == "pool"
      ? "${local.console}/run/workerpools/details/${var.region}/${var.name}-bridge?project=${var.project_id}"
    : "${local.console}/run/jobs/details/${var.region}/${var.name}-bridge?project=${var.project_id}")
    requests     = "${local.console}/cloudpubsub/subscription/detail/${module.messaging.requests_subscription}?project=${var.project_id}"
    dead_letters = "${local.console}/cloudpubsub/subscription/detail/${module.messaging.inspect_subscription}?project=${var.project_id}"
    images       = "${local.console}/artifacts/docker/${var.project_id}/${var.region}/${google_artifact_registry_repository.images.repository_id}?project=${var.project_id}"
    secrets      = "${local.console}/security/secret-manager?project=${var.project_id}"
  })
}

output "commands" {
  description = "What to type next."
  # Without double quotes where it can be: terraform shows them with backslashes, which would be copied.
  value = {
    bridge_logs = join(" ", [
      "gcloud logging read 'resource.labels.${var.bridge_mode == "pool" ? "worker_pool_name" : "job_name"}=${var.name}-bridge'",
      "--project=${var.project_id} --limit=50 --freshness=1h --format='value(timestamp, severity, jsonPayload.message)'",
    ])
    audit_log = join(" ", [
      "gcloud logging read 'labels.log=audit' --project=${var.project_id} --limit=50",
      "--bucket=${google_logging_project_bucket_config.audit.bucket_id} --location=${var.region} --view=_AllLogs",
    ])
    dead_letters = join(" ", [
      "gcloud pubsub subscriptions pull ${module.messaging.inspect_subscription}", "--project=${var.project_id} --limit=20",
      "--format='table(message.publishTime, message.attributes.requestId, message.attributes.action, message.attributes.reason)'",
    ])
    redis_url = "gcloud secrets versions access latest --secret=${google_secret_manager_secret.this["redis-url"].secret_id} --project=${var.project_id}"
    # What tebra reads, for a shell on a machine that reaches Redis.
    tebra = join(" ", [
      "export GOOGLE_CLOUD_PROJECT=${var.project_id} INSPECT_SUBSCRIPTION=${module.messaging.inspect_subscription}",
      "REQUESTS_TOPIC=${module.messaging.requests_topic} DEAD_LETTERS_TOPIC=${module.messaging.dead_letters_topic} STREAM_PREFIX='${var.stream_prefix}'",
      "REDIS_URL=$(gcloud secrets versions access latest --secret=${google_secret_manager_secret.this["redis-url"].secret_id} --project=${var.project_id})",
    ])
    rebuild = "terraform -chdir=terraform apply -replace='terraform_data.images[\"this\"]'"
    trigger = join(" ", [
      "gcloud builds triggers create github --name=${var.name} --region=${var.region} --project=${var.project_id}",
      "--repository=CONNECTED_REPOSITORY --branch-pattern='^main$' --build-config=cloudbuild.yaml",
      "--service-account=${google_service_account.builder.id}",
      "--substitutions=_REGION=${var.region},_REPOSITORY=${google_artifact_registry_repository.images.repository_id}",
    ])
  }
}

output "images" {
  description = "The images that are deployed, by digest."
  value       = local.images
}

output "accounts" {
  description = "The parts' service accounts. With php_api_audience, let that of process invoke the API's service."
  value       = { for part, account in google_service_account.parts : part => account.email }
}

output "gateway_url" {
  description = "Where browsers reach the gateway; null without it."
  value       = try(google_cloud_run_v2_service.functions["gateway"].uri, null)
}

output "topology" {
  description = "Names of topics and subscriptions."
  value = {
    requests_topic       = module.messaging.requests_topic
    dead_letters_topic   = module.messaging.dead_letters_topic
    inspect_subscription = module.messaging.inspect_subscription
  }
}

output "redis" {
  description = "Memorystore's address; null for a server of one's own."
  value       = var.create_redis ? "${local.redis.host}:${local.redis.port}" : null
}

output "redis_ca_cert" {
  description = "Certificates of the authority of Memorystore's, for REDIS_CA_CERT; null for a server of one's own."
  value       = var.create_redis ? local.redis_ca_cert : null
}
