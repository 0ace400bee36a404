"""What the services share: messages, rules, alarms, the database, the console command."""
