module "messaging" {
  source = "./modules/messaging"

  project_id     = var.project_id
  project_number = data.google_project.this.number

  requests_topic       = local.topics.requests
  dead_letters_topic   = local.topics.dead_letter
  inspect_subscription = local.topics.inspect

  # Internal ingress takes pushes at the service's own URL only.
  process = {
    endpoint = "${google_cloud_run_v2_service.functions["process"].uri}/ProcessRequest"
    audience = google_cloud_run_v2_service.functions["process"].uri
    account  = local.push_emails["process"]
  }
  record = {
    endpoint = "${google_cloud_run_v2_service.functions["record"].uri}/RecordDeadLetter"
    audience = google_cloud_run_v2_service.functions["record"].uri
    account  = local.push_emails["record"]
  }

  publishers = {
    requests = { bridge = google_service_account.parts["bridge"].member }
    dead_letters = {
      bridge  = google_service_account.parts["bridge"].member
      process = google_service_account.parts["process"].member
    }
  }
  operators = var.operators

  ack_deadline_seconds       = var.ack_deadline_seconds
  min_backoff_seconds        = var.min_backoff_seconds
  max_backoff_seconds        = var.max_backoff_seconds
  max_attempts               = var.max_attempts
  request_retention_hours    = var.request_retention_hours
  dead_letter_retention_days = var.dead_letter_retention_days

  storage_regions = [var.region]
  kms_key         = var.kms_key

  deletion_protection = var.deletion_protection

  # The first push must be let in. Topics go first when all goes: what protects them
  # then protects the audit log too.
  depends_on = [
    google_cloud_run_v2_service_iam_member.push,
    google_logging_project_sink.audit,
    terraform_data.agents,
    time_sleep.kms,
  ]
}
