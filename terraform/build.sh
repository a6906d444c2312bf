#!/usr/bin/env bash
# Builds the images from the directory it is started in, and waits. images.tf calls it.
#
# An account's rights take up to minutes to be known everywhere: only that is tried
# again. Anything else that fails is a failure, and the next apply builds anew.
set -euo pipefail

readonly attempts=10
for attempt in $(seq "$attempts"); do
  status=0
  log=$(gcloud builds submit . \
    --project="$PROJECT" --region="$REGION" --config=cloudbuild.yaml \
    --service-account="$SERVICE_ACCOUNT" --gcs-source-staging-dir="gs://$BUCKET/source" \
    --substitutions="_REGION=$REGION,_REPOSITORY=$REPOSITORY,_TAG=$TAG" \
    --quiet 2>&1 | tee /dev/stderr) || status=$?
  if [ "$status" -eq 0 ]; then
    exit 0
  fi
  case $log in
  *PERMISSION_DENIED* | *"does not have storage."* | *"403"*) ;;
  *) exit "$status" ;;
  esac
  echo "build.sh: attempt $attempt of $attempts was refused; rights may not be known everywhere yet" >&2
  sleep "${RETRY_SECONDS:-20}"
done
exit 1
