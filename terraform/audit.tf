# The audit log: the lines with the label log=audit, kept for years.

resource "google_logging_project_bucket_config" "audit" {
  project        = var.project_id
  location       = var.region
  bucket_id      = "${var.name}-audit"
  description    = "${var.name}: who asked for what and what came of it, and what operators did"
  retention_days = var.audit_retention_days
  locked         = var.lock_audit_log

  deletion_policy = var.deletion_protection ? "PREVENT" : "DELETE"

  # It can't be given to a bucket that is there, nor taken away.
  dynamic "cmek_settings" {
    for_each = local.kms
    content {
      kms_key_name = var.kms_key
    }
  }

  depends_on = [time_sleep.apis, time_sleep.kms]
}

# A bucket of the same project needs no grant.
resource "google_logging_project_sink" "audit" {
  project                = var.project_id
  name                   = "${var.name}-audit"
  description            = "${var.name}: the audit log into its own bucket"
  destination            = "logging.googleapis.com/${google_logging_project_bucket_config.audit.id}"
  unique_writer_identity = true

  # Both labels are the programs' own (pkg/telemetry): whatever kind of resource a program
  # runs as, worker pool, job or service, its records come here.
  filter = "labels.log=\"audit\" AND labels.namespace=\"${var.name}\""
}
