# Starts the bridge's job, with bridge_mode = "job".

resource "google_service_account" "scheduler" {
  for_each = local.jobs

  account_id   = "${var.name}-scheduler"
  display_name = "${var.name}: starts the bridge's job"

  depends_on = [time_sleep.apis]
}

resource "google_cloud_run_v2_job_iam_member" "scheduler" {
  for_each = google_cloud_run_v2_job.bridge

  location = var.region
  name     = each.value.name
  role     = "roles/run.invoker"
  member   = google_service_account.scheduler["this"].member

  lifecycle {
    replace_triggered_by = [google_cloud_run_v2_job.bridge[each.key].id]
  }
}

resource "google_cloud_scheduler_job" "bridge" {
  for_each = google_cloud_run_v2_job.bridge

  name             = "${var.name}-bridge"
  description      = "Drains the requests stream every ${var.drain_minutes} minutes"
  region           = var.region
  schedule         = "*/${var.drain_minutes} * * * *"
  time_zone        = "Etc/UTC"
  attempt_deadline = "30s"

  # One start a time: a second would meet the first.
  retry_config {
    retry_count = 0
  }

  http_target {
    http_method = "POST"
    uri         = "https://run.googleapis.com/v2/projects/${var.project_id}/locations/${var.region}/jobs/${each.value.name}:run"

    oauth_token {
      service_account_email = google_service_account.scheduler["this"].email
      scope                 = "https://www.googleapis.com/auth/cloud-platform"
    }
  }

  depends_on = [google_cloud_run_v2_job_iam_member.scheduler]
}
