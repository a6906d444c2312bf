# What calls a person. Each alert is two policies: one for its threshold, one for when
# the numbers that it looks at are not there. Both carry the alert's section of
# RUNBOOK.md. They are PromQL, so that the first apply passes before any program
# has written a metric.

locals {
  # Several installations may share a project.
  here = "namespace=\"${var.name}\""

  # Somebody has requests in flight, so the functions must be reporting.
  in_flight = "sum(max by (lane) (tebra_in_flight_requests{${local.here}}))"
  # A function that nobody needs has no instance, and so no numbers.
  functions_silent = "and on() (${local.in_flight} > 0)"
  # A bridge that is started now and then is silent in between.
  bridge_silent = var.bridge_mode == "pool" ? "" : "and on() vector(0) > 1"

  # What the gateway is asked for by those who may, and how it fails them.
  gateway_fails = "route=~\"/v1/(requests|events)\", outcome=~\"unavailable|other\", ${local.here}"
  gateway_asked = "route=~\"/v1/(requests|events)\", outcome=~\"success|unavailable|other\", ${local.here}"
  # A gateway that nobody needs has no instance either. Requests of browsers are no
  # requests in flight, so that Cloud Run's own count says whether somebody does.
  gateway_silent = "and on() (sum(increase(run_googleapis_com:request_count{monitored_resource=\"cloud_run_revision\", service_name=\"${var.name}-gateway\"}[5m])) > 0)"

  alerts = {
    dead_letters = {
      title    = "Dead letters"
      severity = "ERROR"
      query    = "sum by (reason) (increase(tebra_dead_letters_total{${local.here}}[5m])) > 0"
      for      = "0s"
      absence  = "absent(tebra_dead_letters_total{${local.here}}) ${local.bridge_silent}"
    }
    oldest_in_flight = {
      title    = "Requests go unanswered"
      severity = "ERROR"
      query    = "max by (lane) (tebra_in_flight_oldest_seconds{${local.here}}) > ${var.alert_in_flight_minutes * 60}"
      for      = "60s"
      absence  = "absent(tebra_in_flight_oldest_seconds{${local.here}}) ${local.bridge_silent}"
    }
    lag = {
      title    = "Requests are not being read"
      severity = "ERROR"
      query    = "max(tebra_stream_lag_oldest_seconds{${local.here}}) > ${var.alert_lag_seconds}"
      for      = "60s"
      absence  = "absent(tebra_stream_lag_oldest_seconds{${local.here}}) ${local.bridge_silent}"
    }
    heartbeat = {
      title    = "No bridge has a heartbeat"
      severity = "CRITICAL"
      query    = "time() - max(tebra_heartbeat_timestamp_seconds{${local.here}}) > 120 ${local.bridge_silent}"
      for      = "60s"
      absence  = "absent(tebra_heartbeat_timestamp_seconds{${local.here}}) ${local.bridge_silent}"
    }
    breaker_open = {
      title    = "The API is down"
      severity = "CRITICAL"
      query    = "max(tebra_breaker_open{${local.here}}) > 0"
      for      = "60s"
      absence  = "absent(tebra_breaker_open{${local.here}}) ${local.bridge_silent}"
    }
    pubsub_down = {
      title    = "Pub/Sub takes nothing"
      severity = "CRITICAL"
      query    = "max(tebra_gate_shut{reason=\"pubsub\", ${local.here}}) > 0"
      for      = "60s"
      absence  = "absent(tebra_gate_shut{reason=\"pubsub\", ${local.here}}) ${local.bridge_silent}"
    }
    error_ratio = {
      title    = "An action fails too often"
      severity = "WARNING"
      query = join(" ", [
        "sum by (action) (rate(tebra_requests_answered_total{outcome!=\"success\", ${local.here}}[10m]))",
        "/ sum by (action) (rate(tebra_requests_answered_total{${local.here}}[10m])) > ${var.alert_error_ratio}",
        "and sum by (action) (increase(tebra_requests_answered_total{outcome!=\"success\", ${local.here}}[10m])) >= 3",
      ])
      for     = "60s"
      absence = "absent(tebra_requests_answered_total{${local.here}}) ${local.functions_silent}"
    }
    push_5xx = {
      title    = "Pushes are answered with 5xx"
      severity = "WARNING"
      query = join(" ", [
        "sum by (function) (rate(tebra_pushes_total{code=~\"5..\", ${local.here}}[5m]))",
        "/ sum by (function) (rate(tebra_pushes_total{${local.here}}[5m])) > 0.1",
        "and sum by (function) (increase(tebra_pushes_total{code=~\"5..\", ${local.here}}[5m])) >= 3",
      ])
      for     = "60s"
      absence = "absent(tebra_pushes_total{${local.here}}) ${local.functions_silent}"
    }
    no_progress = {
      title    = "Nothing moves"
      severity = "CRITICAL"
      query    = "${local.in_flight} > 0 unless on() sum(increase(tebra_requests_answered_total{${local.here}}[10m])) > 0"
      for      = "300s"
      absence  = "absent(tebra_in_flight_requests{${local.here}}) ${local.bridge_silent}"
    }
    gateway_unavailable = {
      title    = "The gateway fails browsers"
      severity = "ERROR"
      query = join(" ", [
        "sum by (route) (rate(tebra_gateway_requests_total{${local.gateway_fails}}[2m]))",
        "/ sum by (route) (rate(tebra_gateway_requests_total{${local.gateway_asked}}[2m])) > 0.1",
        "and sum by (route) (increase(tebra_gateway_requests_total{${local.gateway_fails}}[2m])) >= 3",
      ])
      for     = "300s" # an instance that starts may take two minutes to reach Redis
      absence = "absent(tebra_gateway_requests_total{${local.here}}) ${local.gateway_silent}"
    }
    gateway_streams = {
      title    = "The gateway runs out of event streams"
      severity = "WARNING"
      query    = "sum(tebra_gateway_streams_open{${local.here}}) > ${floor(0.8 * local.gateway_streams)}"
      for      = "60s"
      absence  = "absent(tebra_gateway_streams_open{${local.here}}) ${local.gateway_silent}"
    }
  }

  # The runbook by its sections' headings.
  runbook = {
    for section in slice(split("\n## ", file("${path.module}/RUNBOOK.md")), 1, length(split("\n## ", file("${path.module}/RUNBOOK.md")))) :
    split("\n", section)[0] => section
  }
  active_alerts = {
    for name, alert in local.alerts : name => alert
    if var.enable_telemetry && (var.enable_gateway || !startswith(name, "gateway_"))
  }
  channels = concat(tolist(var.alert_channels), [for c in google_monitoring_notification_channel.email : c.id])
}

resource "google_monitoring_notification_channel" "email" {
  for_each = var.enable_telemetry ? var.alert_emails : toset([])

  project      = var.project_id
  type         = "email"
  display_name = "${var.name}: ${each.value}"
  labels       = { email_address = each.value }

  depends_on = [time_sleep.apis]
}

resource "google_monitoring_alert_policy" "threshold" {
  for_each = local.active_alerts

  project               = var.project_id
  display_name          = "${var.name}: ${each.value.title}"
  combiner              = "OR"
  severity              = each.value.severity
  notification_channels = local.channels
  user_labels           = merge(local.labels, { alert = each.key })

  conditions {
    display_name = each.value.title
    condition_prometheus_query_language {
      query                     = each.value.query
      duration                  = each.value.for
      evaluation_interval       = "30s"
      rule_group                = var.name
      alert_rule                = each.key
      disable_metric_validation = true
    }
  }

  documentation {
    subject   = "${var.name}: ${each.value.title}"
    mime_type = "text/markdown"
    content   = "## ${local.runbook[each.key]}"
    dynamic "links" {
      for_each = var.runbook_url == null ? [] : [var.runbook_url]
      content {
        display_name = "Runbook"
        url          = "${links.value}#${each.key}"
      }
    }
  }

  depends_on = [time_sleep.apis]
}

# Numbers that are not there say nothing; that they are not there does.
resource "google_monitoring_alert_policy" "absence" {
  for_each = local.active_alerts

  project               = var.project_id
  display_name          = "${var.name}: no numbers for: ${each.value.title}"
  combiner              = "OR"
  severity              = "WARNING"
  notification_channels = local.channels
  user_labels           = merge(local.labels, { alert = "${each.key}-absent" })

  conditions {
    display_name = "no numbers for: ${each.value.title}"
    condition_prometheus_query_language {
      query                     = trimspace(each.value.absence)
      duration                  = "180s"
      evaluation_interval       = "30s"
      rule_group                = var.name
      alert_rule                = "${each.key}_absent"
      disable_metric_validation = true
    }
  }

  documentation {
    subject   = "${var.name}: no numbers for: ${each.value.title}"
    mime_type = "text/markdown"
    content   = "## ${local.runbook["absent"]}\n\nThe numbers are those of the alert below.\n\n## ${local.runbook[each.key]}"
    dynamic "links" {
      for_each = var.runbook_url == null ? [] : [var.runbook_url]
      content {
        display_name = "Runbook"
        url          = "${links.value}#absent"
      }
    }
  }

  depends_on = [time_sleep.apis]
}
