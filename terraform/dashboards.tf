# One dashboard a file. They name the installation where its numbers are read, and
# show of the gateway where there is one.
resource "google_monitoring_dashboard" "this" {
  for_each = var.enable_telemetry ? fileset("${path.module}/dashboards", "*.json") : toset([])

  project = var.project_id
  dashboard_json = templatefile("${path.module}/dashboards/${each.value}", {
    name            = var.name
    project_id      = var.project_id
    enable_gateway  = var.enable_gateway
    gateway_streams = local.gateway_streams
  })

  depends_on = [time_sleep.apis]
}
