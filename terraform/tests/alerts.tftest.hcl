# Who is called about what, what is kept for auditors, and where telemetry goes.

# Knows at plan what would be known after an apply.
mock_provider "google" {
  source          = "./tests/mocks"
  override_during = plan
}

# Nothing is waited for.
mock_provider "time" {}

variables {
  project_id  = "test-project"
  region      = "us-central1"
  php_api_url = "https://php-api.example.com/api"
  php_api_key = "key"
  redis_url   = "rediss://tebra:password@redis.example.com:6379"
  image_tag   = "v1"
}

run "every_alert_has_a_threshold_an_absence_and_a_runbook" {
  command = plan

  assert {
    condition = alltrue([
      for name in ["dead_letters", "oldest_in_flight", "lag", "heartbeat", "breaker_open", "error_ratio", "push_5xx", "no_progress"] :
      contains(keys(google_monitoring_alert_policy.threshold), name)
    ])
    error_message = "an alert that there must be is missing"
  }
  assert {
    condition     = keys(google_monitoring_alert_policy.threshold) == keys(google_monitoring_alert_policy.absence)
    error_message = "an alert would be silent where its numbers are missing"
  }
  assert {
    condition = alltrue([
      for p in concat(values(google_monitoring_alert_policy.threshold), values(google_monitoring_alert_policy.absence)) :
      p.conditions[0].condition_prometheus_query_language[0].disable_metric_validation
    ])
    error_message = "the first apply would fail: no program has written a metric yet"
  }
  assert {
    condition     = alltrue([for p in google_monitoring_alert_policy.absence : startswith(p.conditions[0].condition_prometheus_query_language[0].query, "absent(")])
    error_message = "an absence policy looks at something else"
  }
  assert {
    condition = alltrue([
      for name, p in google_monitoring_alert_policy.threshold :
      startswith(p.documentation[0].content, "## ${name}\n") && strcontains(p.documentation[0].content, "**How to look.**") && strcontains(p.documentation[0].content, "**What to do.**")
    ])
    error_message = "an alert does not carry its section of the runbook"
  }
  assert {
    condition     = alltrue([for p in google_monitoring_alert_policy.threshold : strcontains(p.conditions[0].condition_prometheus_query_language[0].query, "namespace=\"tebra\"")])
    error_message = "an alert looks at other installations too"
  }
}

run "without_a_gateway_nobody_is_called_about_it" {
  command = plan

  assert {
    condition     = alltrue([for name in keys(google_monitoring_alert_policy.threshold) : !startswith(name, "gateway")])
    error_message = "there are alerts on a gateway that is not there"
  }
  assert {
    condition     = !strcontains(google_monitoring_dashboard.this["requests.json"].dashboard_json, "tebra_gateway")
    error_message = "the dashboard shows a gateway that is not there"
  }
  assert {
    condition     = length(jsondecode(google_monitoring_dashboard.this["requests.json"].dashboard_json).mosaicLayout.tiles) > 20
    error_message = "the dashboard is not whole without the gateway"
  }
}

run "a_gateway_is_watched_too" {
  command = plan
  variables {
    name                  = "other"
    enable_gateway        = true
    gateway_max_instances = 3
  }

  assert {
    condition = alltrue([
      for p in [google_monitoring_alert_policy.threshold, google_monitoring_alert_policy.absence] :
      length(setsubtract(["gateway_unavailable", "gateway_streams"], keys(p))) == 0
    ])
    error_message = "nobody is called about the gateway"
  }
  assert {
    condition = alltrue([
      for name in ["gateway_unavailable", "gateway_streams"] :
      startswith(google_monitoring_alert_policy.threshold[name].documentation[0].content, "## ${name}\n") &&
      strcontains(google_monitoring_alert_policy.threshold[name].conditions[0].condition_prometheus_query_language[0].query, "namespace=\"other\"")
    ])
    error_message = "an alert of the gateway has no section of the runbook, or looks at other installations"
  }
  assert {
    condition     = endswith(google_monitoring_alert_policy.threshold["gateway_streams"].conditions[0].condition_prometheus_query_language[0].query, "> 2400")
    error_message = "want a call at four fifths of what three instances may serve"
  }
  assert {
    condition = alltrue([
      for name in ["gateway_unavailable", "gateway_streams"] :
      strcontains(google_monitoring_alert_policy.absence[name].conditions[0].condition_prometheus_query_language[0].query, "service_name=\"${google_cloud_run_v2_service.functions["gateway"].name}\"")
    ])
    error_message = "a gateway that nobody needs would call somebody, or one that is asked would not"
  }
  assert {
    condition = length([
      for tile in jsondecode(google_monitoring_dashboard.this["requests.json"].dashboard_json).mosaicLayout.tiles : tile
      if strcontains(jsonencode(tile), "tebra_gateway") || strcontains(jsonencode(tile), "http.server.request.duration")
    ]) == 5
    error_message = "the dashboard does not show the gateway"
  }
  assert {
    condition = anytrue([
      for tile in jsondecode(google_monitoring_dashboard.this["requests.json"].dashboard_json).mosaicLayout.tiles :
      try(tile.widget.title == "Open event streams" && tile.widget.xyChart.thresholds[0].value == 3000, false)
    ])
    error_message = "the dashboard does not show the limit of event streams"
  }
}

run "alerts_go_to_channels_and_link_to_the_runbook" {
  command = plan
  variables {
    name           = "other"
    alert_emails   = ["oncall@example.com"]
    alert_channels = ["projects/test-project/notificationChannels/1"]
    runbook_url    = "https://example.com/RUNBOOK.md"
  }

  assert {
    condition     = alltrue([for p in google_monitoring_alert_policy.threshold : length(p.notification_channels) == 2])
    error_message = "an alert goes to fewer than the two channels"
  }
  assert {
    condition     = google_monitoring_alert_policy.threshold["lag"].documentation[0].links[0].url == "https://example.com/RUNBOOK.md#lag"
    error_message = "the link does not lead to the alert's section"
  }
  assert {
    condition     = strcontains(google_monitoring_alert_policy.threshold["lag"].conditions[0].condition_prometheus_query_language[0].query, "namespace=\"other\"")
    error_message = "the alert does not follow the installation's name"
  }
}

run "thresholds_are_variables" {
  command = plan
  variables {
    alert_lag_seconds       = 45
    alert_in_flight_minutes = 3
    alert_error_ratio       = 0.5
  }

  assert {
    condition = (
      endswith(google_monitoring_alert_policy.threshold["lag"].conditions[0].condition_prometheus_query_language[0].query, "> 45") &&
      endswith(google_monitoring_alert_policy.threshold["oldest_in_flight"].conditions[0].condition_prometheus_query_language[0].query, "> 180") &&
      strcontains(google_monitoring_alert_policy.threshold["error_ratio"].conditions[0].condition_prometheus_query_language[0].query, "> 0.5 ")
    )
    error_message = "a threshold does not follow its variable"
  }
}

# A bridge that runs now and then is silent in between, and nobody is called for it.
run "scale_to_zero_is_no_outage" {
  command = plan
  variables {
    bridge_mode = "job"
  }

  assert {
    condition     = endswith(google_monitoring_alert_policy.absence["heartbeat"].conditions[0].condition_prometheus_query_language[0].query, "and on() vector(0) > 1")
    error_message = "a bridge that sleeps would call somebody"
  }
}

run "the_audit_log_is_kept_for_six_years_and_not_locked" {
  command = plan

  assert {
    condition     = google_logging_project_bucket_config.audit.retention_days == 2192 && !google_logging_project_bucket_config.audit.locked
    error_message = "want six years, and no lock unless it is asked for: it can't be undone"
  }
  assert {
    condition     = google_logging_project_bucket_config.audit.deletion_policy == "PREVENT"
    error_message = "an accident could take the audit log away"
  }
  assert {
    condition     = google_logging_project_sink.audit.filter == "labels.log=\"audit\" AND labels.namespace=\"tebra\""
    error_message = "the sink does not take the audit log"
  }
}

run "locking_is_a_variable" {
  command = plan
  variables {
    lock_audit_log = true
  }

  assert {
    condition     = google_logging_project_bucket_config.audit.locked
    error_message = "the bucket is not locked"
  }
}

run "programs_send_their_telemetry_and_may" {
  command = plan
  variables {
    enable_gateway = true
  }

  assert {
    condition = alltrue([
      for part in ["bridge", "process", "record", "gateway"] :
      local.environment[part].OTEL_SDK_DISABLED == "false" && local.environment[part].OTEL_EXPORTER_OTLP_ENDPOINT == "https://telemetry.googleapis.com" &&
      strcontains(local.environment[part].OTEL_RESOURCE_ATTRIBUTES, "cloud.region=us-central1") &&
      contains(keys(google_project_iam_member.telemetry), "${part}-roles/telemetry.writer")
    ])
    error_message = "a program does not send its telemetry, or may not"
  }
  assert {
    condition     = alltrue([for s in google_cloud_run_v2_service.functions : !s.template[0].containers[0].resources[0].cpu_idle])
    error_message = "a function's telemetry would not be sent between requests"
  }
}

run "without_telemetry_nothing_is_sent_and_nobody_called" {
  command = plan
  variables {
    enable_telemetry = false
  }

  assert {
    condition     = length(google_monitoring_alert_policy.threshold) == 0 && length(google_monitoring_dashboard.this) == 0 && length(google_project_iam_member.telemetry) == 0
    error_message = "there are alerts on metrics that nobody sends"
  }
  assert {
    condition     = alltrue([for part in ["bridge", "process", "record", "gateway"] : local.environment[part].OTEL_SDK_DISABLED == "true"])
    error_message = "telemetry is sent all the same"
  }
}

run "reject_trace_ratio_over_one" {
  command = plan
  variables {
    trace_ratio = 1.1
  }
  expect_failures = [var.trace_ratio]
}

run "reject_an_address_that_is_none" {
  command = plan
  variables {
    alert_emails = ["oncall"]
  }
  expect_failures = [var.alert_emails]
}

run "reject_a_channel_that_is_none" {
  command = plan
  variables {
    alert_channels = ["oncall"]
  }
  expect_failures = [var.alert_channels]
}

run "reject_a_lag_of_seconds" {
  command = plan
  variables {
    alert_lag_seconds = 9
  }
  expect_failures = [var.alert_lag_seconds]
}

run "reject_waiting_longer_than_the_answer_deadline" {
  command = plan
  variables {
    alert_in_flight_minutes = 121
  }
  expect_failures = [var.alert_in_flight_minutes]
}

run "reject_an_error_ratio_of_all" {
  command = plan
  variables {
    alert_error_ratio = 1
  }
  expect_failures = [var.alert_error_ratio]
}

run "reject_a_runbook_with_a_fragment" {
  command = plan
  variables {
    runbook_url = "https://example.com/RUNBOOK.md#lag"
  }
  expect_failures = [var.runbook_url]
}

run "reject_keeping_longer_than_logging_can" {
  command = plan
  variables {
    audit_retention_days = 3651
  }
  expect_failures = [var.audit_retention_days]
}
