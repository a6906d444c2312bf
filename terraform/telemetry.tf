# Where the programs send metrics and traces, and that they may.

locals {
  otlp_endpoint = "https://telemetry.googleapis.com"
}

# Quota counts against the project, so that its use is a permission too.
resource "google_project_iam_member" "telemetry" {
  for_each = var.enable_telemetry ? {
    for pair in setproduct(local.parts, ["roles/telemetry.writer", "roles/serviceusage.serviceUsageConsumer"]) :
    "${pair[0]}-${pair[1]}" => { part = pair[0], role = pair[1] }
  } : {}

  project = var.project_id
  role    = each.value.role
  member  = google_service_account.parts[each.value.part].member
}
