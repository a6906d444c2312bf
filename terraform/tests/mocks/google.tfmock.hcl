# What Google would answer, as far as the configuration looks at it.

mock_data "google_project" {
  defaults = { number = "123456789012" }
}
mock_data "google_artifact_registry_docker_image" {
  defaults = { self_link = "us-central1-docker.pkg.dev/test-project/tebra/image@sha256:0000000000000000000000000000000000000000000000000000000000000000" }
}
mock_resource "google_cloud_run_v2_service" {
  defaults = { uri = "https://service-abc-uc.a.run.app" }
}
mock_resource "google_service_account" {
  defaults = { email = "account@test-project.iam.gserviceaccount.com", member = "serviceAccount:account@test-project.iam.gserviceaccount.com" }
}
mock_resource "google_secret_manager_secret_version" {
  defaults = { version = "7", secret = "projects/test-project/secrets/secret" }
}
mock_resource "google_redis_instance" {
  defaults = {
    host            = "10.1.2.3"
    port            = 6378
    auth_string     = "p/w"
    server_ca_certs = [{ cert = "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n", serial_number = "1", create_time = "", expire_time = "", sha1_fingerprint = "" }]
  }
}
mock_resource "google_compute_subnetwork" {
  defaults = { id = "projects/test-project/regions/us-central1/subnetworks/tebra-run" }
}
