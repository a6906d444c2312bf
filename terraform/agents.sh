#!/usr/bin/env bash
# Has Google make the agents of SERVICES, and with STORAGE=true that of Cloud Storage.
# agents.tf calls it; that they are there already is no failure.
set -euo pipefail

for service in $SERVICES; do
  gcloud beta services identity create --project="$PROJECT" --service="$service.googleapis.com" --quiet
done
if [ "$STORAGE" = true ]; then
  gcloud storage service-agent --project="$PROJECT" --quiet
fi

# An agent that was asked for does not get the role that Google gives it otherwise. Only
# Redis's needs its role: it joins the instance to the network. It is never taken away,
# as others in the project may need it too.
case " $SERVICES " in
*" redis "*)
  gcloud projects add-iam-policy-binding "$PROJECT" --role=roles/redis.serviceAgent --condition=None \
    --member="serviceAccount:service-$NUMBER@cloud-redis.iam.gserviceaccount.com" --format=none --quiet
  ;;
esac
