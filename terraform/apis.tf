locals {
  apis = toset(concat(
    [
      "artifactregistry.googleapis.com",
      "cloudbuild.googleapis.com",
      "compute.googleapis.com",
      "iam.googleapis.com",
      "logging.googleapis.com",
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

resource "google_project_service" "resource_manager" {
  project            = var.project_id
  service            = "cloudresourcemanager.googleapis.com"
  disable_on_destroy = false
}

# Read once the API that answers is there, and no later: while it is to be read, the
# project's number is unknown, and every binding of an agent would be made anew.
data "google_project" "this" {
  project_id = var.project_id
  depends_on = [google_project_service.resource_manager]
}
