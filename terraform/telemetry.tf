# Where the programs send metrics and traces, and that they may.

locals {
  # Added to every program's environment.
  telemetry_environment = var.enable_telemetry ? {
    OTEL_EXPORTER_OTLP_ENDPOINT = "https://telemetry.googleapis.com"
    OTEL_RESOURCE_ATTRIBUTES    = "cloud.region=${var.region},namespace=${var.name},service.namespace=${var.name}"
    OTEL_TRACES_SAMPLER         = "parentbased_traceidratio"
    OTEL_TRACES_SAMPLER_ARG     = tostring(var.trace_ratio)
    } : {
    OTEL_SDK_DISABLED = "true"
  }
}

# Quota counts against the project, so that its use is a permission too.
resource "google_project_iam_member" "telemetry" {
  for_each = var.enable_telemetry ? {
    for pair in setproduct(["bridge", "process", "record"], ["roles/telemetry.writer", "roles/serviceusage.serviceUsageConsumer"]) :
    "${pair[0]}-${pair[1]}" => { part = pair[0], role = pair[1] }
  } : {}

  project = var.project_id
  role    = each.value.role
  member  = google_service_account.parts[each.value.part].member
}
