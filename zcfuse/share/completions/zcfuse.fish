# Part of zcfuse, put in place by 'zcfuse setup'. For fish: asks zcfuse once a session.
zcfuse completion fish | source
