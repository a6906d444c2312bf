locals {
  apis = toset(concat(
    [
      "artifactregistry.googleapis.com",
      "cloudbuild.googleapis.com",
      "compute.googleapis.com",
      "iam.googleapis.com",
      "pubsub.googleapis.com",
      "run.googleapis.com",
      "secretmanager.googleapis.com",
      "storage.googleapis.com",
    ],
    var.enable_telemetry ? ["cloudtrace.googleapis.com", "monitoring.googleapis.com", "telemetry.googleapis.com"] : [],
    var.create_redis ? ["redis.googleapis.com"] : [],
    var.bridge_mode == "job" ? ["cloudscheduler.googleapis.com"] : [],
    var.enable_gateway || local.firebase_roles ? ["identitytoolkit.googleapis.com"] : [],
    var.kms_key != null ? ["cloudkms.googleapis.com"] : [],
  ))
}

# Others in the project may use them too: they stay when this goes.
resource "google_project_service" "apis" {
  for_each = local.apis

  project            = var.project_id
  service            = each.value
  disable_on_destroy = false
}

# An API that was just enabled is not known everywhere at once: for a while it still
# answers that it is not enabled.
resource "time_sleep" "apis" {
  create_duration = "60s"
  triggers        = { apis = join(" ", local.apis) }

  depends_on = [google_project_service.apis]
}

# Those that data sources ask are apart: what is read while anything that it depends on
# is still to be changed is unknown, and every binding of an agent would be made anew.
resource "google_project_service" "asked" {
  for_each = toset(["cloudresourcemanager.googleapis.com", "logging.googleapis.com"])

  project            = var.project_id
  service            = each.value
  disable_on_destroy = false
}

resource "time_sleep" "asked" {
  create_duration = "60s"

  depends_on = [google_project_service.asked]
}

data "google_project" "this" {
  project_id = var.project_id
  depends_on = [time_sleep.asked]
}
