-- What a container's check was answered last, with the run that it was asked in; null: nothing yet.
alter table containers add column health json;
