# One account a part, with no role but what stands here, in secrets.tf (its secrets)
# and in modules/messaging (its topics).

locals {
  # Known before the account is made, and still after it: the attribute is the input.
  push_emails = {
    for name, account in google_service_account.push : name => "${account.account_id}@${var.project_id}.iam.gserviceaccount.com"
  }
  firebase_readers = toset(concat(
    local.firebase_roles ? ["process"] : [],
    var.enable_gateway ? ["gateway"] : [],
  ))
}

resource "google_service_account" "parts" {
  for_each = local.parts

  account_id   = "${var.name}-${each.value}"
  display_name = "${var.name}: ${each.value == "bridge" ? "bridge" : local.functions[each.value]}"

  depends_on = [time_sleep.apis]
}

# Pushes are made as these. Each may invoke one service.
resource "google_service_account" "push" {
  for_each = toset(["process", "record"])

  account_id   = "${var.name}-push-${each.value}"
  display_name = "${var.name}: pushes to ${local.functions[each.value]}"

  depends_on = [time_sleep.apis]
}

resource "google_cloud_run_v2_service_iam_member" "push" {
  for_each = google_service_account.push

  location = var.region
  name     = google_cloud_run_v2_service.functions[each.key].name
  role     = "roles/run.invoker"
  member   = each.value.member

  lifecycle {
    replace_triggered_by = [google_cloud_run_v2_service.functions[each.key].id]
  }
}

# Users' roles, and whether a token was revoked.
resource "google_project_iam_member" "firebase" {
  for_each = local.firebase_readers

  project = var.project_id
  role    = "roles/firebaseauth.viewer"
  member  = google_service_account.parts[each.value].member
}

# --- the build ---------------------------------------------------------------

resource "google_service_account" "builder" {
  account_id   = "${var.name}-builder"
  display_name = "${var.name}: builds images"

  depends_on = [time_sleep.apis]
}

resource "google_artifact_registry_repository_iam_member" "builder" {
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.repository_id
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.builder.member

  lifecycle {
    replace_triggered_by = [google_artifact_registry_repository.images.id]
  }
}

resource "google_storage_bucket_iam_member" "builder" {
  bucket = google_storage_bucket.build.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.builder.member

  lifecycle {
    replace_triggered_by = [google_storage_bucket.build.id]
  }
}

resource "google_project_iam_member" "builder_logs" {
  project = var.project_id
  role    = "roles/logging.logWriter"
  member  = google_service_account.builder.member
}
