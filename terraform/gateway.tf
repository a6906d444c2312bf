# The one thing here that anybody may call: browsers have no Google identity. Who a
# user is, the gateway itself finds out, from a Firebase ID token.
resource "google_cloud_run_v2_service_iam_member" "public" {
  for_each = { for key, function in local.functions : key => function if key == "gateway" }

  location = var.region
  name     = google_cloud_run_v2_service.functions[each.key].name
  role     = "roles/run.invoker"
  member   = "allUsers"

  lifecycle {
    replace_triggered_by = [google_cloud_run_v2_service.functions[each.key].id]
  }
}
