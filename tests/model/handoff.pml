/* ===========================================================================
 * handoff.pml - zero-downtime binary handoff: the protocol with its final rules
 *
 * Roles     S    supervisor           (process S; crashes, is restarted)
 *           D(i) daemons, one per slot: incumbent O, successor N, cold start
 * Guard     one flock on the data directory          -> lock
 * Channels  per daemon one AF_UNIX stream to S       -> s2d[], d2s[], up[], sc[]
 *
 * Modelling choices
 *  - One atomic block = one externally visible action (a send, a receive, a
 *    journal write, a lock operation, a kill).  Process Crash may strike
 *    between any two of them.
 *  - All timers are nondeterministic: they may fire at any moment, also while
 *    the peer is alive and its answer is already in the socket.
 *  - Polling (flock retry, reconnect) is a blocking guard, hence every run is
 *    finite and "eventually X" is "X holds wherever nothing is enabled any
 *    more" (process Check, guard `timeout`).  That all runs are finite is
 *    verified separately: no cycle at all (-DNP, pan -l, no progress labels).
 *    Crash can always decide to stop, so a state that only a further crash
 *    could leave counts as stuck.
 *  - dead(k) is the kernel's truth (waitpid, pidfd).  S uses it only for pids
 *    it knows: spawned in this life, or in the journal.
 *  - A write is acked when it is in the writer's memory, and flushed later.
 *    What a spontaneous crash loses of the unflushed part is forgiven (the
 *    daemon's own durability policy); whatever the handoff or a SIGKILL of S
 *    loses is a violation.  -DDURABLE_ACK is rule D1: acked only after
 *    write(2), i.e. an acked write survives SIGKILL.
 *
 *  - States, events and actions of S and D bear the names of src/proto, and an
 *    atomic block is a row of its tables: RULE("row of rules.md: EVENT ...")
 *    stands at its end, RULE("-: EVENT") where a guard refuses it.  With -DRELATION each step prints itself: relation.sh
 *    collects them, compare.py lays them beside the tables, replay.py judges
 *    the simulator's traces by them.
 *
 * Bounds     -DNCRASH=2  faults, all roles together     -DNHAND=1 handoffs
 *            -DNWRITE=2  client writes; 3 process slots
 * Options    -DDURABLE_ACK  rule D1; S may then kill a silent daemon after
 *                        T_reg / T_resume without knowing what it has done
 *            -DKILL_O    S may SIGKILL an O that does not exit on Commit
 *            -DPDEATHSIG N dies with S (kernel) until it has read Commit
 *            -DHANG      a fault may be a hang (alive, takes no step) of a
 *                        daemon that is not serving; needs the three above
 *            -DHANG_S    the one fault is a hang of S: clients must be served
 *            -DCLEAN_LAST the last handoff meets no fault and no timer: it must
 *                        commit, whatever happened to the earlier one
 *            -DO_DEAD_ABORTS  the older rule: S aborts when O dies in warm, drain
 *                        or seal; without it S goes on with N
 *            -DONLY_O    the only faults are deaths of O, no timer fires: a
 *                        handoff that has begun must commit
 *            -DSLOWDEATH a crash has two steps: first EOF, then the flock is
 *                        released and the death can be verified
 *            -DHELPER    a forked helper of a crashed daemon may keep the flock
 *                        for a while
 *            -DBADNEW    a daemon of a new binary never gets to Ready
 *            -DBADOPEN   N may open a stale state, if O's SealComplete was sent
 *                        (so that there is something to compare)
 *            -DBREAK     a fault may be the end of a channel whose both ends live:
 *                        by S (a frame that it cannot read) or by an incumbent
 *            -DJFAULT    a fault may be a journal write, a fork or a lock that fails
 *            -DJLOST     a fault may be a restart without the journal, nothing being
 *                        decided: the flock says which incumbent lives, or, while one
 *                        serves, nothing does
 *            -DREEXEC=n  S may replace itself by another binary n times: its channels,
 *                        listeners and journal stay, and of its memory who serves
 *            -DASK=n     an operator asks n times for a stop, or a restart of the daemon,
 *                        whenever S does not wait for an action's answer
 *            -DREACH=X   no quiescent state has X (probe.sh)
 *            -DNT_xxx    timer T_xxx never fires (ablation)
 *            -DM_xxx     breaks one rule (mutation), see run_mutants.sh
 *            -DNOCR_S -DNOCR_D  no crash of S / of daemons
 * ======================================================================== */
#ifndef NCRASH
#define NCRASH 2
#endif
#ifndef NHAND
#define NHAND 1
#endif
#ifndef NWRITE
#define NWRITE 2
#endif
#define NSLOT 3
#define NONE  NSLOT		/* no slot; the lock is free	*/
#define BAD   99		/* revision of an unhealthy Ready */
#define UNSEALED 98		/* O died unsealed: no revision to compare */
#define HELPED (NSLOT+1)	/* the lock is held by a dead daemon's helper */

#ifdef QUIET
#define LOG(x) skip
#else
#define LOG(x) printf x
#endif

/* F: may faults, timers and failures happen now? */
#ifdef ONLY_O
#define F false
#define FC true			/* deaths of O only */
#elif defined(CLEAN_LAST)
#define F (jh < NHAND)
#define FC F
#define STARTLAST (st[sinc] == D_SERVE)	/* the clean one starts from a live O */
#else
#define F true
#define FC F
#endif
#ifndef STARTLAST
#define STARTLAST true
#endif

/* -------------------------------------------------------------- timers --- */
/* of S: */
#ifdef NT_WARM		/* N's Hello (warm-up done)		*/
#define T_WARM false
#else
#define T_WARM F
#endif
#ifdef NT_DRAIN		/* O's Drained				*/
#define T_DRAIN false
#else
#define T_DRAIN F
#endif
#ifdef NT_SEAL		/* O's SealComplete			*/
#define T_SEAL false
#else
#define T_SEAL F
#endif
#ifdef NT_READY		/* N's Ready				*/
#define T_READY false
#else
#define T_READY F
#endif
#ifdef NT_TAKE		/* N's Status(serving) after Commit	*/
#define T_TAKE false
#else
#define T_TAKE F
#endif
#ifdef KILL_O		/* O's exit after Commit		*/
#define T_OEXIT F
#else
#define T_OEXIT false
#endif
#if defined(DURABLE_ACK) && !defined(NT_REG)	/* re-registration after a restart */
#define T_REG F
#else
#define T_REG false
#endif
#if defined(DURABLE_ACK) && !defined(NT_STOP)	/* a daemon's end after SIGTERM */
#define T_STOP F
#else
#define T_STOP false
#endif
#if defined(DURABLE_ACK) && !defined(NT_RESUME)	/* O's Status(serving) after Resume */
#define T_RESUME F
#else
#define T_RESUME false
#endif
/* N is warm, O is not connected: how long S waits for it */
#ifdef NT_AWAIT
#define T_AWAIT false
#else
#define T_AWAIT F
#endif
/* of the daemons: */
#ifdef NT_NBEGIN	/* N waits for Begin  */
#define T_NBEGIN false
#else
#define T_NBEGIN F
#endif
#ifdef NT_NCOMMIT	/* N waits for Commit */
#define T_NCOMMIT false
#else
#define T_NCOMMIT F
#endif
#ifdef NT_ODRAINED	/* O drained, waits for SealRequest */
#define T_ODRAINED false
#else
#define T_ODRAINED F
#endif
#ifdef NT_OSEALED	/* O sealed, waits for Commit or Resume */
#define T_OSEALED false
#else
#define T_OSEALED F
#endif

/* ------------------------------------------------------------ messages --- */
/* Every message carries the handoff id and one value.
 *   reference: Hello PrepareHandoff Drained SealRequest SealComplete SealFailed
 *           Begin Ready Commit ResumeAfterAbort
 *   REG     Hello on a reconnect (+ phase, handoff id, lock held, listener fds)
 *   SERVING Status(serving) of N: "I take over"	   } one new message
 *   STATUS  Status(serving) of O: "I serve (again)"  }
 *   COMMIT  to N: serve; to O: exit; value 1 to the incumbent: final	   */
mtype = { HELLO, PREPARE, DRAINED, SEALREQ, SEALOK, SEALFAIL, BEGIN, READY,
	  COMMIT, RESUME, REG, SERVING, STATUS };
#define P_STANDBY 0		/* phase in REG */
#define P_SERVING 1

chan s2d[NSLOT] = [6] of { mtype, byte, byte };
chan d2s[NSLOT] = [6] of { mtype, byte, byte };
bit up[NSLOT];		/* the daemon's end of the connection is open	*/
bit sc[NSLOT];		/* S's end is open				*/

/* ------------------------------------------------------- daemon states --- */
#define D_EXIT     0	/* no such process				*/
#define D_START    1	/* N: exec'd, warming up, read-only		*/
#define D_WBEGIN   2	/* N: warm, Hello sent, waits for Begin		*/
#define D_LOCK     3	/* N: got Begin, tries the flock once		*/
#define D_LOCK_DEAD 4	/* N: got Begin(nothing sealed), waits for the flock */
#define D_OPEN     5	/* N: has the flock, opens state		*/
#define D_READY    6	/* N: Ready sent, waits for Commit		*/
#define D_SERVE    9	/* incumbent: serving, the writer		*/
#define D_DRAINING 10	/* O: accept closed, in-flight work finishing	*/
#define D_DRAINED  11	/* O: flushed, Drained sent, has the flock	*/
#define D_UNDRAIN  12	/* O: is to serve again, has not answered yet	*/
#define D_SEALING  13	/* O: closing its writer			*/
#define D_UNSEAL   14	/* O: the same, and the seal is no longer wanted */
#define D_SEALED   17	/* O: sealed standby: no flock, serves nothing	*/
#define D_RELOCK   18	/* O: told to resume, waits for the flock	*/
#define D_REOPEN   19	/* O: has the flock again, reopens from disk	*/
/* between two actions of one row; the tables have no such states */
#define I_COMM     7	/* N: got Commit, must announce Serving		*/
#define I_TAKE     8	/* N: announced, about to serve			*/
#define I_UNLK    15	/* O: writer closed, about to release the flock	*/
#define I_SEALSND 16	/* O: flock released, SealComplete not yet sent	*/
/* the kernel's */
#define D_GATE    20	/* forked, waits until S has written its pid down */
#define D_DYING   21	/* -DSLOWDEATH: fds half closed, not yet reaped	*/
#define WARMING(k) (st[k] >= D_START && st[k] <= D_READY)
#define INCUMBENT(k) (st[k] >= D_SERVE && st[k] <= D_REOPEN)

byte st[NSLOT];
byte ver[NSLOT];	/* binary version: 0 initial, h = handoff h's	*/
byte hid[NSLOT];	/* handoff the daemon takes part in		*/
byte mem[NSLOT];	/* in-memory write counter			*/
bit  wr[NSLOT];		/* believes "I am the writer"			*/
bit  hg[NSLOT];		/* hangs					*/
bit  pl[NSLOT];		/* O, sealed: tries the flock by itself		*/
bit  tm[NSLOT];		/* has been sent SIGTERM			*/
#ifdef M_GO_WARM
bit  ns[NSLOT];		/* N: Begin said that nobody has sealed		*/
#endif
byte lock = 0;		/* holder of the flock				*/
bit passed;		/* its record's epoch is not the one under which O sealed */
byte disk, acked, nw;	/* writes: on disk, acknowledged, issued	*/
byte fmt;		/* on-disk format = version that wrote it	*/

/* ---------------------------------------------------------- supervisor --- */
#define S_IDLE        0
#define S_SPAWNING    2	/* N is forked					*/
#define S_NAMING      3	/* STARTED and N's pid are journaled		*/
#define S_WARM        4
#define S_AWAIT_O     5	/* N is warm, O's channel is lost		*/
#define S_DRAIN       6
#define S_SEAL        7
#define S_READY       8
#define S_CHECK       9	/* Ready is good: what lies in O's socket is read */
#define S_DECIDING   10	/* COMMITTED is journaled			*/
#define S_TAKE       11
#define S_PROBATION  12	/* of any length >= 0: O sealed standby		*/
#define S_TELL_O     13
#define S_OEXIT      14
#define S_ABORT      15	/* reads what the dead N had sent		*/
#define S_BACK       16
#define S_RESUMING   17
#define S_COLD       18
#define S_COLD_SPAWN 19
#define S_COLD_NAME  20
#define S_COLD_WARM  21
#define S_COLD_READY 22
#define S_COLD_TAKE  23
#define S_R_IDLE     24	/* restarted, journal idle: waits for the incumbent */
#define S_R_COMMITTED 25	/* restarted, journal committed: waits for N	*/
/* between two actions of one row */
#define I_FINAL      26	/* tells the incumbent that there is no way back */
#define S_COLD_ENDING 27	/* what was being started is ended, for another or for a stop */
#define S_COLD_STOP  28	/* a stop; who waits to register is looked at	*/
#define S_STOPPING   29
#define S_RESTARTING 30
/* S itself */
#define S_DOWN       31
#define S_BOOT       32	/* restarted: reads the journal, opens its socket */
#define S_STOPPED    33

byte sst = S_IDLE;	/* S's memory, lost in its crash ...		*/
byte sinc = 0, ssucc = NONE, sh, srev;
bit scold;		/* the spawn in progress is a cold start	*/
bit smay;		/* N of handoff sh may have served		*/
bit sL = 1;		/* S has the listening sockets			*/
bit soc = 1;		/* O is connected, as far as S knows		*/
bit sprep;		/* O was sent Prepare, or a restart cannot know	*/
bit sstand;		/* O has registered again and did not serve	*/
bit sok;		/* the answer of a journal write, of a fork	*/
bit sstop;		/* a stop was asked for				*/
#ifdef REEXEC
byte nre = REEXEC;
#endif
#ifdef ASK
byte nask = ASK;
#define MAY_STOP (nask && !sstop)
#define MAY_RESTART nask
#endif

/* ... and its journal (tmpfs, one atomic rename per update)		   */
#define J_IDLE      0
#define J_STARTED   1	/* handoff jh runs; N has not been sent Commit	*/
#define J_COMMITTED 2	/* N may have been sent Commit			*/
byte jph = J_IDLE, jh, jinc = 0, jsucc = NONE, jver;
bit jserves = 1;		/* the incumbent of the journal has said that it serves */
#define O_NONE       0
#define O_COMMITTED  1
#define O_ABORTED    2
#define O_ROLLEDBACK 3
#define O_UNBORN    4	/* its STARTED is not written, nothing is reported yet */
#define O_UNKNOWN   5	/* and S has died before that: nobody knows of it      */
byte jout[NHAND+1];	/* outcome, as reported to the operator		*/
#define REPORTED(k) (jout[k] != O_NONE && jout[k] != O_UNBORN)

/* --------------------------------------------------------------- ghosts -- */
byte ncr = NCRASH;
bit hgS;		/* S hangs (-DHANG_S)				*/
bit decided[NHAND+1];	/* "committed" was journaled			*/
bit ncomm[NHAND+1];	/* N received Commit				*/
bit nserv[NHAND+1];	/* N has served as the writer			*/
bit gseal[NHAND+1];	/* O's SealComplete is in the socket or read	*/
byte gleft = NONE;	/* had the flock at S's end, and had not come	*/

/* ------------------------------------------------- the relation, printed -- */
#define A_BEGIN_ATTEMPT 1
#define A_JOURNAL_STARTED 2
#define A_SPAWN 3
#define A_RELEASE 5
#define A_PREPARE 6
#define A_SEAL_REQUEST 7
#define A_BEGIN_SEALED 8
#define A_BEGIN_NOTHING 9
#define A_READ_O 10
#define A_JOURNAL_COMMITTED 11
#define A_COMMIT_N 12
#define A_COMMIT_O 13
#define A_FINAL 14
#define A_KILL_N 15
#define A_KILL_O 16
#define A_RESUME_O 17
#define A_MAY 18
#define A_PROMOTE 19
#define A_OUTCOME 20
#define A_JOURNAL_OUTCOME 21
#define A_REPORT 22
#define A_SPAWN_COLD 23
#define A_JOURNAL_COLD 24
#define A_JOURNAL_SERVES 25
#define A_COLD_FAILED 26
#define A_SEND_HELLO 27
#define A_TRY_LOCK 28
#define A_UNLOCK 29
#define A_SEND_READY 30
#define A_SEND_STATUS 31
#define A_SEND_DRAINED 32
#define A_SEND_SEALED 33
#define A_SEND_SEAL_FAILED 34
#define A_SEND_REFUSED 35
#define A_UNTIE 36
#define A_TELL_BEGIN 37
#define A_TELL_DECIDED 38
#define A_TELL_DRAIN 39
#define A_TELL_SEAL 40
#define A_TELL_RESUME 41
#define A_TELL_REOPEN 42
#define A_TELL_COMMIT 43
#define A_TELL_FINAL 44
#define A_TELL_LOST 45
#define A_POLL 46
#define A_RECONNECT 47
#define A_DROP 48
#define A_REEXEC 49
#define A_JOURNAL_FOUND 50
#define A_TERM_O 51
#define A_END 52
#ifdef RELATION	/* where a step began, what S knew then, its actions in base 64 */
byte gfrom = 255;
int gacts, gfacts;
#define FROM(x) gfrom = x
#define ACT(a) gacts = gacts * 64 + a
#define RULE(text) printf("@S %d %d %d %d ", (gfrom == 255 -> sst : gfrom), sst, gacts, gfacts); \
	printf(text); printf("\n"); gfrom = 255; gacts = 0; gfacts = 0
#define DRULE(text) printf("@D %d %d %d %d ", (gfrom == 255 -> st[i] : gfrom), st[i], gacts, gfacts); \
	printf(text); printf("\n"); gfrom = 255; gacts = 0; gfacts = 0
#else
#define FROM(x) skip
#define ACT(a) skip
#define RULE(text) skip
#define DRULE(text) skip
#endif

/* -------------------------------------------------------------- helpers -- */
#define dead(k)	(st[k] == D_EXIT)
/* S knows that k is gone: verified dead, and all it had sent has been read */
#define GONE(k)	(k == NONE || (st[k] == D_EXIT && (!sc[k] || empty(d2s[k]))))
#define HERE(k)	(k != NONE && (st[k] != D_EXIT || (sc[k] && nempty(d2s[k]))))
#define EOFS(k)	(up[k] && !sc[k] && empty(s2d[k]))	/* k reads EOF of S */
#define SLISTENS (sst < S_DOWN)
#define ALLDEAD	(dead(0) && dead(1) && dead(2))
/* a fresh pid: never one that the journal still names */
#define FREE(k) (st[k] == D_EXIT && !sc[k] && k != jinc && k != jsucc)
#ifdef M_NO_ID
#define ISH(x) true		/* takes answers of any handoff */
#else
#define ISH(x) (x == sh)
#endif
/* O is gone before it has sealed: S may go on with N */
#if defined(M_GO_EOF)		/* goes on at EOF of O's socket */
#define OGONE (sinc != NONE && !up[sinc] && empty(d2s[sinc]))
#elif defined(M_GO_UNREAD)	/* goes on at O's death, leaves its socket unread */
#define OGONE (sinc == NONE || dead(sinc))
#else
#define OGONE GONE(sinc)
#endif
#ifdef M_GO_OLDREV		/* compares with what it has: the last one, or 0 */
#define NOREV srev = srev
#else
#define NOREV srev = UNSEALED
#endif
#ifdef M_NO_DRAIN		/* acts on SIGCHLD, leaves N's messages unread */
#define NGONE(k) dead(k)
#else
#define NGONE(k) GONE(k)
#endif
#ifdef M_N_STAYS		/* N keeps flock and waits when S is gone */
#define NFENCES(i) (st[i] == D_START || st[i] == D_WBEGIN)
#else
#define NFENCES(i) (WARMING(i) && st[i] != D_LOCK)	/* LOCK: flock answers at once */
#endif
/* Killing a process that might be serving: with D1 always harmless; without
 * D1 "stop, check, kill": SIGSTOP N, look for Serving in its socket, SIGKILL;
 * SIGSTOP O, N still alive (so N has the flock and O has not), SIGKILL.    */
#if defined(DURABLE_ACK) || defined(M_KILL_BLIND)
#define NOTSERVING(k) true
#define NALIVE(k) true
#else
#define NOTSERVING(k) empty(d2s[k])
#define NALIVE(k) !dead(k)
#endif

inline dsend(m, a, b)	/* D(i) -> S; EPIPE is ignored, EOF will be read */
{	if
	:: sc[i] && up[i] -> assert(nfull(d2s[i])); d2s[i]!m,a,b
	:: else
	fi
}
inline ssend(k, m, a, b)
{	if
	:: up[k] -> assert(nfull(s2d[k])); s2d[k]!m,a,b
	:: else
	fi
}
inline purge(c)
{	do
	:: nempty(c) -> c?_,_,_
	:: empty(c) -> break
	od
}
inline die(k)		/* the kernel closes the fds and drops the flock */
{	st[k] = D_EXIT; up[k] = 0; wr[k] = 0; hg[k] = 0; hid[k] = 0; mem[k] = 0; ver[k] = 0;
	pl[k] = 0; tm[k] = 0; purge(s2d[k]);
	if
	:: lock == k -> lock = NONE
	:: else
	fi
}
inline skill(k)		/* S: SIGKILL and wait for the death */
{	if
	:: k != NONE && !dead(k) ->
#ifndef DURABLE_ACK
		assert(!wr[k]);		/* never a process that may write */
#endif
		die(k)
	:: else
	fi
}
inline sclose(k)
{	if
	:: k != NONE && sc[k] -> sc[k] = 0; purge(d2s[k])
	:: else
	fi
}
inline startwriting()	/* SAFETY: here the belief "I am the writer" begins */
{	assert(lock == i);
	assert(wr[0] + wr[1] + wr[2] == 0);
	assert(mem[i] == acked);	/* nothing acknowledged was lost */
	wr[i] = 1
}
inline dowrite()	/* SAFETY: writes only under the flock */
{	assert(lock == i && wr[i]);
	assert(mem[i] == acked);
	mem[i]++; acked = mem[i]; nw++;
#ifdef DURABLE_ACK
	disk = mem[i];
#endif
}

/* What S knew, in the bits of tests/model/relation.py and of tests/sim/facts.c */
inline facts()
{
#ifdef RELATION
	gfacts = gfacts + 8 * smay + 16 * sprep + 32 * jserves + 64 * sstand + 1024 * sstop;
	if
	:: GONE(sinc) -> gfacts = gfacts + 1
	:: HERE(sinc) && soc -> gfacts = gfacts + 2
	:: HERE(sinc) && !soc
	fi;
	if
	:: GONE(ssucc) -> gfacts = gfacts + 4
	:: HERE(ssucc)
	fi
#else
	skip
#endif
}
inline heard_ready(sealed)	/* ... of the Ready that it has just read; before to() */
{
#ifdef RELATION
	gfacts = 128 * (v != BAD) + 256 * (v == srev) + 512 * (sealed)
#else
	skip
#endif
}
inline dfacts()		/* what D(i) knew */
{
#ifdef RELATION
	gfacts = pl[i] + 2 * (hid[i] == 0)
#else
	skip
#endif
}
inline to(x) { FROM(sst); facts(); sst = x }
inline go(x) { FROM(st[i]); dfacts(); st[i] = x }

/* ================================================================ daemon == */
/* the epoch in Begin is that of the lock's record */
#ifdef M_NO_EPOCH
#define NOT_PASSED true
#else
#define NOT_PASSED (!passed)
#endif
/* the end of its channel: S has closed it, or (-DBREAK) the daemon itself does */
#if defined(BREAK) && !defined(M_BROKEN_GOES_ON)	/* which is about those that S closes */
#define CUT(i) (ncr && F && up[i] && sc[i] && INCUMBENT(i))
#else
#define CUT(i) false
#endif
inline eof()
{	if
	:: sc[i] -> ncr--; LOG(("*** D%d loses its channel\n", i))
	:: else
	fi;
	purge(s2d[i]); up[i] = 0; ACT(A_RECONNECT)
}
inline comes_back(phase)
{	go(st[i]); up[i] = 1; sc[i] = 1; dsend(REG, hid[i], phase); ACT(A_SEND_HELLO);
	sL = (sL || i == jinc || i == jsucc);	/* a stranger's sockets are not taken */
	LOG(("D%d: registers again\n", i))
}
#ifdef HANG
proctype D(byte i) provided (hg[_pid-2] == 0)	/* D(i) has pid i+2 */
#else
proctype D(byte i)
#endif
{	byte h, v;
end:	do
	/* ---- successor; until it has read Commit, EOF of S = exit ----------- */
	:: atomic { st[i] == D_START -> go(D_WBEGIN);
		mem[i] = disk;			/* warm-up: whatever is on disk now */
		dsend(HELLO, hid[i], 0); ACT(A_SEND_HELLO);
		LOG(("N%d: warm, Hello\n", i)); DRULE("START warm-up done: APP_BEGIN") }
	:: atomic { st[i] == D_WBEGIN && s2d[i]?[BEGIN,_,_] ->
		s2d[i]?BEGIN,h,v; LOG(("N%d: got Begin\n", i));
#ifdef M_GO_WARM
		ns[i] = v;
#endif
		if
		:: v == 0 -> go(D_LOCK); ACT(A_TRY_LOCK); DRULE("WBEGIN Begin(rev): BEGIN_SEALED")
		:: else -> go(D_LOCK_DEAD); ACT(A_TRY_LOCK); DRULE("WBEGIN Begin(nothing sealed): BEGIN_NOTHING")
		fi }
	:: atomic { st[i] == D_LOCK && lock == NONE && NOT_PASSED -> go(D_OPEN); lock = i; ACT(A_TELL_BEGIN);
		LOG(("N%d: takes flock\n", i)); DRULE("WBEGIN Begin(rev): LOCKED") }
	:: atomic { st[i] == D_LOCK && lock == NONE && !NOT_PASSED -> go(D_EXIT); ACT(A_DROP);
		LOG(("N%d: another has had the flock since the seal\n", i)); die(i); DRULE("WBEGIN Begin(rev): LOCK_FAILED") }
	:: atomic { st[i] == D_LOCK_DEAD && lock == NONE -> go(D_OPEN); lock = i; ACT(A_TELL_BEGIN);
		LOG(("N%d: takes flock\n", i)); DRULE("WBEGIN Begin(nothing sealed): LOCKED") }
	:: atomic { st[i] == D_LOCK && lock != NONE -> go(D_EXIT); ACT(A_DROP);
		LOG(("N%d: flock held by %d, exits\n", i, lock)); die(i); DRULE("WBEGIN Begin(rev): LOCK_HELD") }
#ifdef M_LOCK_ONCE	/* else: nobody has sealed: retries, a helper of the dead may hold it */
	:: atomic { st[i] == D_LOCK_DEAD && lock != NONE -> go(D_EXIT); ACT(A_DROP);
		LOG(("N%d: flock held by %d, exits\n", i, lock)); die(i) }
#endif
#ifdef JFAULT
	:: atomic { st[i] == D_LOCK && ncr && F -> go(D_EXIT); ncr--; ACT(A_DROP);
		LOG(("*** N%d: the lock's record cannot be written\n", i)); die(i); DRULE("WBEGIN Begin(rev): LOCK_FAILED") }
	:: atomic { st[i] == D_LOCK_DEAD && ncr && F -> go(D_EXIT); ncr--; ACT(A_DROP);
		LOG(("*** N%d: the lock's record cannot be written\n", i)); die(i); DRULE("WBEGIN Begin(nothing sealed): LOCK_FAILED") }
#endif
	:: atomic { st[i] == D_OPEN ->
		assert(fmt <= ver[i]);		/* can read what is on disk */
		if
#if !defined(M_WARM_TRUST) && !defined(M_GO_WARM)
		:: true -> mem[i] = disk	/* revalidates the warm cache */
#elif defined(M_GO_WARM)
		:: !ns[i] || hid[i] == 0 -> mem[i] = disk
		:: else
#else
		:: true
#endif
#ifdef BADOPEN
		:: hid[i] && gseal[hid[i]]
#endif
		fi;
#ifdef BADNEW
		if
		:: ver[i] -> LOG(("N%d: bad binary, dies\n", i)); die(i); goto end
		:: else
		fi;
#endif
		if
		:: true -> dsend(READY, hid[i], mem[i]); LOG(("N%d: Ready rev=%d\n", i, mem[i]))
		:: hid[i] != 0 && F ->		/* unhealthy (in a cold start: see below) */
		   dsend(READY, hid[i], BAD); LOG(("N%d: Ready UNHEALTHY\n", i))
#ifdef JFAULT
		:: hid[i] == 0 && ncr && F -> ncr--;
		   dsend(READY, hid[i], BAD); LOG(("N%d: Ready UNHEALTHY\n", i))
#endif
		fi;
		go(D_READY); ACT(A_SEND_READY); DRULE("OPEN: APP_READY") }
	:: atomic { st[i] == D_READY && s2d[i]?[COMMIT,_,_] ->
		s2d[i]?COMMIT,h,_; assert(h == hid[i]);
		if
		:: h -> ncomm[h] = 1
		:: else
		fi;
		LOG(("N%d: got Commit\n", i)); ACT(A_UNTIE);
#ifdef M_SERVE_FIRST
		go(I_TAKE);
#else
		go(I_COMM);
#endif
		DRULE("READY Commit: COMMIT") }
	:: atomic { st[i] == I_COMM ->		/* announces BEFORE the first client */
		dsend(SERVING, hid[i], 0); LOG(("N%d: sends Serving\n", i)); ACT(A_SEND_STATUS);
#ifdef M_SERVE_FIRST
		go(D_SERVE);
#else
		go(I_TAKE);
#endif
		DRULE("+") }
	:: atomic { st[i] == I_TAKE ->
		assert(hid[i] == 0 || decided[hid[i]]);	/* never before the commit */
		startwriting(); ACT(A_TELL_DECIDED);
		if
		:: hid[i] -> nserv[hid[i]] = 1
		:: else
		fi;
		LOG(("N%d: SERVES v%d\n", i, ver[i]));
#ifdef M_NEWFMT
		fmt = ver[i];			/* upgrades the format at once */
#endif
#ifdef M_SERVE_FIRST
		go(I_COMM);
#else
		go(D_SERVE);
#endif
		DRULE("+") }
	:: atomic { st[i] == D_GATE && EOFS(i) -> LOG(("N%d: EOF at its gate, exits\n", i)); die(i) }
	:: atomic { NFENCES(i) && EOFS(i) -> go(D_EXIT); ACT(A_DROP);
		LOG(("N%d: EOF of S before Commit, exits\n", i)); die(i); DRULE("N EOF of S: EOF") }
	:: atomic { hid[i] != 0 && st[i] == D_WBEGIN && T_NBEGIN -> go(D_EXIT); ACT(A_DROP);
		LOG(("N%d: own deadline, exits\n", i)); die(i); DRULE("WBEGIN T_nbegin: TIMEOUT") }
	:: atomic { hid[i] != 0 && st[i] == D_LOCK_DEAD && T_NCOMMIT -> go(D_EXIT); ACT(A_DROP);
		LOG(("N%d: own deadline, exits\n", i)); die(i); DRULE("WBEGIN T_ncommit: TIMEOUT") }
	:: atomic { hid[i] != 0 && st[i] == D_READY && T_NCOMMIT -> go(D_EXIT); ACT(A_DROP);
		LOG(("N%d: own deadline, exits\n", i)); die(i); DRULE("READY T_ncommit: TIMEOUT") }

	/* ---- serving --------------------------------------------------------- */
	:: atomic { (st[i] == D_SERVE || st[i] == D_DRAINING) && nw < NWRITE ->
		dowrite(); LOG(("D%d: acks write %d\n", i, acked)) }
	:: atomic { st[i] == D_SERVE && disk != mem[i] -> disk = mem[i] }  /* flush */
	:: atomic { st[i] == D_SERVE && nempty(s2d[i]) ->
		if
		:: s2d[i]?PREPARE,h,_ -> hid[i] = h; go(D_DRAINING); ACT(A_TELL_DRAIN);
			LOG(("O%d: Prepare(%d), stops accepting\n", i, h)); DRULE("SERVE Prepare: PREPARE")
		:: s2d[i]?SEALREQ,h,_ -> go(D_SERVE); dsend(SEALFAIL, h, 0); ACT(A_SEND_REFUSED);
			LOG(("O%d: SealRequest after own resume: SealFailed\n", i)); DRULE("SERVE SealRequest: SEAL_REQUEST")
		:: s2d[i]?RESUME,h,_ -> go(D_SERVE); dsend(STATUS, h, 0); ACT(A_SEND_STATUS);
			LOG(("O%d: Resume while serving: Status\n", i)); DRULE("SERVE Resume: RESUME")
		:: s2d[i]?COMMIT,h,v -> go(D_SERVE);
			if
			:: v == 1 -> fmt = ver[i];	/* final: may upgrade the format */
				ACT(A_TELL_FINAL); LOG(("D%d: Commit(final)\n", i)); DRULE("SERVE Commit(final): FINAL")
			:: else ->
#ifdef M_COMMIT_ANY
				LOG(("O%d: Commit while serving, exits\n", i));
				assert(ncomm[h] && lock != i); die(i)
#else
				dsend(STATUS, h, 0);	/* exit only when sealed */
				ACT(A_SEND_STATUS);
				LOG(("O%d: Commit while serving: refused, Status\n", i)); DRULE("SERVE Commit: COMMIT")
#endif
			fi
		fi }
	:: atomic { st[i] == D_SERVE && (EOFS(i) || CUT(i)) -> go(D_SERVE); ACT(A_TELL_LOST); eof();
		LOG(("D%d: EOF of S, keeps serving\n", i)); DRULE("SERVE EOF of S: EOF") }
	:: atomic { st[i] == D_SERVE && !up[i] && SLISTENS && !sc[i] -> comes_back(P_SERVING);
		DRULE("O connects again: CONNECTED") }
	:: atomic { st[i] > D_SERVE && INCUMBENT(i) && st[i] != D_DRAINING && st[i] != D_DRAINED &&
		st[i] != D_SEALING && st[i] != I_UNLK && st[i] != I_SEALSND &&
		!up[i] && SLISTENS && !sc[i] -> comes_back(P_STANDBY);
		DRULE("O connects again: CONNECTED") }

	/* ---- incumbent being drained and sealed -------------------------------- */
	:: atomic { st[i] == D_DRAINING -> go(D_DRAINED);
#ifndef M_NO_FLUSH
		disk = mem[i];
#endif
		dsend(DRAINED, hid[i], 0); ACT(A_SEND_DRAINED);
		LOG(("O%d: flushed, Drained\n", i)); DRULE("SERVE Prepare: APP_DRAINED") }
	:: atomic { st[i] == D_DRAINED && s2d[i]?[SEALREQ,_,_] -> go(D_SEALING);
		s2d[i]?SEALREQ,h,_; ACT(A_TELL_SEAL); LOG(("O%d: SealRequest\n", i)); DRULE("DRAINED SealRequest: SEAL_REQUEST") }
	:: atomic { (st[i] == D_DRAINING || st[i] == D_DRAINED) && s2d[i]?[RESUME,_,_] ->
		go(D_UNDRAIN); s2d[i]?RESUME,h,_; ACT(A_TELL_RESUME);
		LOG(("O%d: Resume\n", i)); DRULE("DRAINED Resume: RESUME") }
	:: atomic { (st[i] == D_DRAINING || st[i] == D_DRAINED) && (EOFS(i) || CUT(i)) ->
		go(D_UNDRAIN); ACT(A_TELL_RESUME); eof();
		LOG(("O%d: EOF of S, resumes\n", i)); DRULE("DRAINED EOF: EOF") }
	:: atomic { (st[i] == D_DRAINING || st[i] == D_DRAINED) && up[i] && T_ODRAINED ->
		go(D_UNDRAIN); ACT(A_TELL_RESUME);
		LOG(("O%d: own deadline (drained), resumes\n", i)); DRULE("DRAINED T_odrained: TIMEOUT") }
	:: atomic { st[i] == D_UNDRAIN -> go(D_SERVE); dsend(STATUS, hid[i], 0); ACT(A_SEND_STATUS);
		LOG(("O%d: serves again, Status\n", i)); DRULE("DRAINED Resume: APP_RESUMED") }
	:: atomic { st[i] == D_UNDRAIN && s2d[i]?[SEALREQ,_,_] -> go(D_UNDRAIN);
		s2d[i]?SEALREQ,h,_; dsend(SEALFAIL, h, 0); ACT(A_SEND_REFUSED);
		DRULE("SERVE SealRequest: SEAL_REQUEST") }
	:: atomic { st[i] == D_UNDRAIN && (EOFS(i) || CUT(i)) -> go(D_UNDRAIN); eof(); DRULE("DRAINED EOF: EOF") }
	:: atomic { (st[i] == D_SEALING || st[i] == D_UNSEAL) ->
		if
		:: st[i] == D_SEALING -> go(I_UNLK); wr[i] = 0;
#ifndef M_NO_FLUSH
		   disk = mem[i];
#endif
		   LOG(("O%d: sealed\n", i)); DRULE("DRAINED SealRequest: APP_SEALED")
		:: st[i] == D_SEALING && F -> go(D_SERVE); dsend(SEALFAIL, hid[i], 0); ACT(A_SEND_SEAL_FAILED);
		   LOG(("O%d: SealFailed, serves\n", i)); DRULE("DRAINED SealRequest failed: APP_SEAL_FAILED")
		:: st[i] == D_UNSEAL -> go(D_REOPEN); wr[i] = 0; ACT(A_TELL_REOPEN);
#ifndef M_NO_FLUSH
		   disk = mem[i];
#endif
#ifdef M_UNSEAL_UNLOCKS
		   lock = NONE;
#endif
		   LOG(("O%d: sealed, not wanted any more\n", i)); DRULE("SEALING Resume: APP_SEALED")
		:: st[i] == D_UNSEAL && F -> go(D_SERVE); dsend(STATUS, hid[i], 0); ACT(A_SEND_STATUS);
		   LOG(("O%d: not sealed, serves, Status\n", i)); DRULE("SEALING Resume: APP_SEAL_FAILED")
		fi }
	:: atomic { st[i] == D_SEALING && s2d[i]?[RESUME,_,_] -> go(D_UNSEAL); s2d[i]?RESUME,h,_;
		LOG(("O%d: Resume in the seal\n", i)); DRULE("SEALING Resume: RESUME") }
	:: atomic { st[i] == D_SEALING && (EOFS(i) || CUT(i)) -> go(D_UNSEAL); eof(); DRULE("SEALING EOF: EOF") }
	:: atomic { st[i] == D_SEALING && up[i] && T_OSEALED -> go(D_UNSEAL);
		LOG(("O%d: own deadline in the seal\n", i)); DRULE("SEALING T_osealed: TIMEOUT") }
	:: atomic { st[i] == D_UNSEAL && (EOFS(i) || CUT(i)) -> go(D_UNSEAL); eof(); DRULE("SEALING EOF: EOF") }
	:: atomic { st[i] == I_UNLK -> go(I_SEALSND);
		lock = NONE; passed = 0; ACT(A_UNLOCK); LOG(("O%d: releases flock\n", i)); DRULE("+") }
	:: atomic { st[i] == I_SEALSND -> go(D_SEALED);
		dsend(SEALOK, hid[i], mem[i]); ACT(A_SEND_SEALED);
		gseal[hid[i]] = sc[i] && up[i];
		LOG(("O%d: SealComplete rev=%d\n", i, mem[i])); DRULE("+") }

	/* ---- sealed standby ------------------------------------------------------ */
	:: atomic { st[i] == D_SEALED && s2d[i]?[COMMIT,_,_] -> go(D_EXIT);
		s2d[i]?COMMIT,h,_; ACT(A_TELL_COMMIT);
		assert(h == hid[i] && ncomm[h]); /* O exits only if N took over */
		LOG(("O%d: Commit, exits\n", i)); die(i); DRULE("SEALED Commit: COMMIT") }
	:: atomic { st[i] == D_SEALED && s2d[i]?[RESUME,_,_] -> go(D_RELOCK);
		s2d[i]?RESUME,h,_; pl[i] = 0; ACT(A_TRY_LOCK); LOG(("O%d: Resume\n", i)); DRULE("SEALED Resume: RESUME") }
	:: atomic { st[i] == D_SEALED && (EOFS(i) || CUT(i)) -> go(D_SEALED); pl[i] = 1; ACT(A_POLL); eof();
		LOG(("O%d: EOF of S, polls the flock\n", i)); DRULE("SEALED EOF: EOF") }
	:: atomic { st[i] == D_SEALED && up[i] && !pl[i] && T_OSEALED -> go(D_SEALED); pl[i] = 1; ACT(A_POLL);
		LOG(("O%d: own deadline, polls the flock\n", i)); DRULE("SEALED T_osealed: TIMEOUT") }
	:: atomic { st[i] == D_SEALED && lock == NONE && (pl[i] || !up[i]) -> go(D_REOPEN);
		lock = i; passed = 1; pl[i] = 0; ACT(A_TELL_REOPEN); LOG(("O%d: got flock, resumes by itself\n", i)); DRULE("SEALED flock got: LOCKED") }
#ifdef M_O_EXIT_BOUND
	:: atomic { st[i] == D_SEALED && !up[i] && lock != NONE ->
		assert(ncomm[hid[i]]);
		LOG(("O%d: flock still held after the bound, exits\n", i)); die(i) }
#endif
	:: atomic { st[i] == D_RELOCK && lock == NONE -> go(D_REOPEN);
		lock = i; passed = 1; ACT(A_TELL_REOPEN); LOG(("O%d: got flock\n", i)); DRULE("RELOCK: LOCKED") }
	:: atomic { st[i] == D_RELOCK && (EOFS(i) || CUT(i)) -> go(D_RELOCK); eof(); DRULE("RELOCK: EOF") }
	:: atomic { st[i] == D_REOPEN -> go(D_SERVE);
		assert(fmt <= ver[i]);		/* can read what is on disk */
#ifndef M_NO_RELOAD
		mem[i] = disk;			/* N may have written */
#endif
		startwriting(); dsend(STATUS, hid[i], 0); ACT(A_SEND_STATUS);
		LOG(("O%d: SERVES again\n", i)); DRULE("REOPEN: APP_RESUMED") }
	:: atomic { st[i] == D_REOPEN && (EOFS(i) || CUT(i)) -> go(D_REOPEN); eof(); DRULE("REOPEN: EOF") }
	/* it is on its way back: what S says now changes nothing */
	:: atomic { (st[i] == D_UNSEAL || st[i] == D_RELOCK || st[i] == D_REOPEN ||
		(st[i] == D_UNDRAIN && !s2d[i]?[SEALREQ,_,_])) && nempty(s2d[i]) -> s2d[i]?_,_,_ }
#ifdef SLOWDEATH
	:: atomic { st[i] == D_DYING -> die(i) }
#endif
#ifdef ASK
	:: atomic { tm[i] && st[i] != D_DYING && st[i] != D_EXIT -> LOG(("D%d: SIGTERM, ends\n", i));
		if
		:: wr[i] -> disk = mem[i]
		:: else
		fi;
		die(i) }
#endif
	od
}

/* ============================================================ supervisor == */
#ifdef JFAULT	/* a write, a fork that may fail: then sok is 0, and nothing has changed */
#define FAULTY :: ncr && F -> sok = 0; ncr--; LOG(("*** a write or a fork of S fails\n"))
#else
#define FAULTY
#endif
inline spawn(k)		/* it waits at its gate until its pid is journaled */
{	assert(sL); st[k] = D_GATE; up[k] = 1; sc[k] = 1; hid[k] = sh; ssucc = k;
	if
	:: scold -> ver[k] = jver
	:: else -> ver[k] = sh
	fi;
#ifdef M_NO_GATE
	st[k] = D_START
#endif
}
#ifdef M_RESUME_ALL
#define KNEW true
#else		/* O was sent Prepare; else it serves and never knew */
#define KNEW sprep
#endif
#define ROOM (FREE(0) || FREE(1) || FREE(2))
inline spawn_any()
{	sok = 1;
	if
	:: FREE(0) -> spawn(0)
	:: !FREE(0) && FREE(1) -> spawn(1)
	:: !FREE(0) && !FREE(1) && FREE(2) -> spawn(2)
	FAULTY
	fi
}
inline release(k)
{	if
	:: st[k] == D_GATE -> st[k] = D_START
	:: else
	fi
}
#define HASO (sinc != NONE && nempty(d2s[sinc]))
/* on its channel; a new one is it when its Hello has been read */
#define HEARD(k) (sc[k] && !d2s[k]?[REG,_,_])
#define NOTHING_OF_O (sinc == NONE || empty(d2s[sinc]))
#define HASN (ssucc != NONE && nempty(d2s[ssucc]))
inline recvO()		/* a Hello: it is connected again */
{	d2s[sinc]?m,h,v; soc = (soc || m == REG)
}
#define IS_STATUS  (m == STATUS && ISH(h))
#ifdef M_UNHEARD	/* only a Status counts */
#define IS_SERVING false
#else
#define IS_SERVING (m == REG && v == P_SERVING)
#endif
#define IS_STANDBY (m == REG && v == P_STANDBY)
inline go_on()		/* O died unsealed: never nobody */
{
#ifdef O_DEAD_ABORTS
	to(S_ABORT); skill(ssucc); LOG(("S: O died\n"))
#else
	to(S_READY); NOREV; ssend(ssucc, BEGIN, sh, (srev == UNSEALED)); ACT(A_BEGIN_NOTHING);
	LOG(("S: O died unsealed, goes on with N\n"))
#endif
}
inline give_up()
{	to(S_ABORT); skill(ssucc); ACT(A_KILL_N); LOG(("S: abort: N is killed\n"))
}
inline prepare()
{	to(S_DRAIN); sprep = 1; ssend(sinc, PREPARE, sh, 0); ACT(A_PREPARE); LOG(("S: Prepare -> O%d\n", sinc))
}
inline outcome(o, inc)	/* journaled and reported: true when it is */
{	jout[sh] = o; jph = J_IDLE; jinc = inc; jsucc = NONE;
	ACT(A_OUTCOME); ACT(A_JOURNAL_OUTCOME); ACT(A_REPORT);
	LOG(("S: outcome(%d) %d (1 COMMITTED, 2 ABORTED, 3 ROLLED BACK)\n", sh, o))
}
inline committed()	/* N took over and O is gone */
{	to(I_FINAL);
	assert(dead(ssucc) || wr[ssucc] || st[ssucc] == I_TAKE || st[ssucc] == D_DYING);
	sclose(sinc); ACT(A_PROMOTE); jver = sh; jserves = 1;
	outcome(O_COMMITTED, ssucc);
	sinc = ssucc; ssucc = NONE; soc = HEARD(sinc); smay = 0; srev = 0; sprep = 0
}
inline not_committed(next)	/* O serves */
{	to(next);
	assert(dead(sinc) || wr[sinc] || st[sinc] == I_TAKE || st[sinc] == D_DYING);
	if
	:: smay -> outcome(O_ROLLEDBACK, sinc)
	:: else -> outcome(O_ABORTED, sinc)
	fi;
	smay = 0; srev = 0; sprep = 0
}
inline both_dead()	/* whose data is it? */
{	to(S_COLD); sclose(sinc);
	if
	:: smay -> jver = sh; outcome(O_COMMITTED, NONE)
#ifdef M_GO_BOTH_NEW	/* N's binary, it was going on with it */
	:: else -> jver = sh; outcome(O_COMMITTED, NONE)
#else
	:: else -> outcome(O_ABORTED, NONE)
#endif
	fi;
	sinc = NONE; soc = 0; smay = 0; srev = 0; sprep = 0
}
/* a Final to it may have gone into a channel that it had lost */
#ifdef M_BACK_NO_FINAL
#define BACK_FINAL S_IDLE
#else
#define BACK_FINAL I_FINAL
#endif
inline final()
{	if
	:: soc -> ssend(sinc, COMMIT, sh, 1)
	:: else
	fi;
	sstand = 0; ACT(A_FINAL)
}
inline stop_asked()
{	nask--; sstop = 1; LOG(("S: a stop is asked for\n"))
}
inline term_o(x)		/* whoever it is: it ends in order, or by force */
{	to(x); ACT(A_TERM_O); LOG(("S: SIGTERM -> %d\n", sinc));
	if
	:: sinc != NONE && !dead(sinc) -> tm[sinc] = 1
	:: else
	fi
}
inline promote_cold(x)		/* N may serve: it is an incumbent that is told to end */
{	FROM(sst); facts(); sinc = ssucc; ssucc = NONE; scold = 0; soc = HEARD(sinc); sprep = 0; srev = 0;
	ACT(A_PROMOTE); sst = x; ACT(A_TERM_O); LOG(("S: SIGTERM -> %d, which may serve\n", sinc));
	if
	:: sinc != NONE && !dead(sinc) -> tm[sinc] = 1
	:: else
	fi
}
inline end_start()		/* what is being started has not been told to serve */
{	to(S_COLD_ENDING); skill(ssucc); ACT(A_KILL_N); LOG(("S: ends what is being started\n"))
}
#define ANSWERS (sst == S_SPAWNING || sst == S_NAMING || sst == S_CHECK || sst == S_DECIDING || \
	sst == S_COLD_SPAWN || sst == S_COLD_NAME || sst == S_COLD_STOP || sst == I_FINAL)
#define KILLS (sst == S_WARM || sst == S_AWAIT_O || sst == S_DRAIN || sst == S_SEAL || sst == S_READY)
#define ENDS (sst == S_COLD_WARM || sst == S_COLD_READY)
inline adopt()
{	to(I_FINAL); jserves = 1; ACT(A_JOURNAL_SERVES); LOG(("S: adopts incumbent %d\n", sinc))
}
/* nobody is known; one that waits to register has the flock, and so serves, or will */
#define UNKNOWN(k) (sinc != k && ssucc != k && lock == k && sc[k] && d2s[k]?[REG,_,_])
#define SOMEONE (UNKNOWN(0) || UNKNOWN(1) || UNKNOWN(2))
inline found()
{	to(S_R_IDLE); sclose(sinc); sinc = lock; soc = 0; scold = 0; sL = 1;
	jinc = lock; jserves = 1; ACT(A_JOURNAL_FOUND); LOG(("S: finds incumbent %d\n", sinc)); RULE("COLD found: O_FOUND")
}
/* the journal has lost its attempt: it is ended under its own id */
#ifdef JLOST
#define SERVES_OR_LOST true
#else
#define SERVES_OR_LOST IS_SERVING
#endif
inline stands_by(x)
{	to(x); sh = h; sstand = 1;
#ifndef M_STANDBY_NO_RESUME
	ssend(sinc, RESUME, sh, 0);
#endif
	ACT(A_RESUME_O);
	LOG(("S: %d stands by in an attempt that nobody knows\n", sinc))
}
inline the_end()		/* who has the flock and is not known is left alone, if it has not come */
{	if
	:: lock < NSLOT && !UNKNOWN(lock) -> gleft = lock
	:: else
	fi;
	sL = 0; sclose(0); sclose(1); sclose(2); sinc = NONE; ssucc = NONE; jinc = NONE; jsucc = NONE;
	jserves = 0; sh = 0; soc = 0; sprep = 0; srev = 0; LOG(("S: ends\n"))
}
inline lose()
{
#ifdef JLOST
	if
	:: ncr && F && jph == J_STARTED && lock < NSLOT && INCUMBENT(lock) ->
		ncr--; LOG(("*** the journal is lost, the flock says %d\n", lock));
		jph = J_IDLE; jinc = lock; jsucc = NONE; jserves = 1; sh = 0;
		jout[jh] = O_ABORTED		/* true, and nobody says so */
	/* nor can the flock be asked; the sockets come back from the service manager, or do not */
	:: ncr && F && jph != J_COMMITTED && lock < NSLOT && st[lock] == D_SERVE ->
		ncr--; LOG(("*** the journal is lost, nothing says that %d lives\n", lock));
		if
		:: jph == J_STARTED -> jout[jh] = O_ABORTED
		:: else
		fi;
		if
		:: sL = 1
		:: true
		fi;
		jph = J_IDLE; jinc = NONE; jsucc = NONE; jserves = 0; sh = 0
	:: true
	fi
#else
	skip
#endif
}
inline cold_done()
{	to(I_FINAL);
#ifdef M_COLD_NOPID
	jinc = ssucc;
#endif
	jserves = 1; sinc = ssucc; ssucc = NONE; scold = 0; soc = HEARD(sinc); sprep = 0; srev = 0;
	ACT(A_PROMOTE); ACT(A_JOURNAL_SERVES); LOG(("S: cold start done\n"))
}
inline kill_o()
{	assert(sprep);			/* never one that serves and never knew */
	LOG(("S: kills O%d\n", sinc)); skill(sinc); ACT(A_KILL_O)
}

/* exec: what the kernel keeps stays, and so does what is carried over: who serves, and that it is
 * connected. All else that S remembers is forgotten */
inline reexec()
{	to(S_IDLE); nre--; assert(sinc == jinc && jph == J_IDLE);
	sinc = jinc; ssucc = NONE; sh = 0; srev = 0; scold = 0; smay = 0; sL = 1; soc = 1; sstand = 0; sprep = 0; sok = 0;
#ifdef M_REEXEC_UNREAD
	purge(d2s[sinc]);
#endif
#ifdef M_REEXEC_SHUTS	/* its end of the channel is not carried over: the same as a crash */
	sc[sinc] = 0; purge(d2s[sinc]); soc = 0;
#endif
	ACT(A_REEXEC); LOG(("S: re-executes itself\n"))
}

#ifdef ONLY_O	/* O's channel too, as long as O knows nothing of the handoff */
#define MAYBREAK (sst <= S_WARM)
#else
#define MAYBREAK F
#endif
/* a channel at its end: S has read all that was sent before */
#define LOST(k) (sst < S_DOWN && sc[k] && !up[k] && empty(d2s[k]) && !dead(k))
inline lost(k)
{	sc[k] = 0; LOG(("S: the channel of %d is at its end\n", k));
	if
	:: k == sinc -> soc = 0
	:: else
	fi
}
/* S itself ends a channel: what was sent is not heard, nor what is said now */
inline breakO()
{	ncr--; LOG(("*** S has to close O%d's channel\n", sinc));
	sclose(sinc); soc = 0;
	if
#ifndef M_BROKEN_GOES_ON
	:: sst == S_DRAIN -> give_up(); RULE("DRAIN Status of O: O_BROKEN")
	:: sst == S_SEAL -> give_up(); RULE("SEAL Status of O: O_BROKEN")
	:: sst == S_READY -> give_up(); RULE("READY Status of O: O_BROKEN")
	:: sst == S_CHECK -> give_up(); RULE("READY Status of O: O_BROKEN")
#endif
	:: else
	fi
}
inline breakN()
{	ncr--; LOG(("*** S has to close N%d's channel\n", ssucc));
	sclose(ssucc);
	if
	:: sst < S_TAKE || sst == S_COLD_WARM || sst == S_COLD_READY -> skill(ssucc)
#ifndef M_LOST_NOT_MAY
	:: sst == S_TAKE -> to(S_TAKE); smay = 1; ACT(A_MAY); RULE("TAKE Status of N: N_LOST")
#endif
	:: else		/* it was told to serve: it registers again */
	fi
}

#ifdef HANG_S
proctype S() provided (!hgS)
#else
proctype S()
#endif
{	mtype m; byte h, v;
end:	do
	/* ---- restart ----------------------------------------------------------- */
	:: atomic { sst == S_DOWN -> sst = S_BOOT; LOG(("S: restarted\n")) }
	:: atomic { sst == S_BOOT ->
		sh = jh; lose();
		sinc = jinc; ssucc = jsucc; smay = (jph == J_COMMITTED); sprep = (jph != J_IDLE);
		LOG(("S: journal: phase %d, handoff %d\n", jph, jh));
		if
		:: jph == J_IDLE -> to(S_R_IDLE); RULE("restart: BOOT")
		:: jph == J_STARTED ->
			if
			:: ssucc != NONE -> give_up(); RULE("restart STARTED: BOOT")
			:: else -> to(S_ABORT); RULE("restart STARTED: BOOT")
			fi
		:: jph == J_COMMITTED ->
#ifdef M_JOURNAL_BLIND
			to(S_TELL_O);
#else
			to(S_R_COMMITTED);
#endif
			RULE("restart: BOOT")
		fi }
	:: atomic { sst == S_R_IDLE && !sstop && HASO -> recvO();
		assert(SERVES_OR_LOST);		/* idle: nobody drains or has sealed */
		if
		:: IS_SERVING -> adopt(); RULE("restart IDLE registers: O_SERVING")
		:: IS_STANDBY -> stands_by(S_R_IDLE); RULE("restart IDLE registers: O_STANDBY")
		:: IS_STATUS -> adopt(); RULE("restart IDLE registers: O_STATUS")
		fi }
	:: atomic { sst == S_R_IDLE && GONE(sinc) -> to(S_COLD); sclose(sinc); RULE("restart IDLE dead: NOW") }
#ifdef ASK
	:: atomic { sst == S_R_IDLE && sstop && HERE(sinc) -> term_o(S_STOPPING); RULE("stop: NOW") }
#endif
	/* a silent incumbent that has served is left alone (no handoff until it
	 * registers); one whose cold start never ended is killed */
	:: atomic { sst == S_R_IDLE && F && sinc != NONE && !dead(sinc) && (!sc[sinc] || sstand) && jserves ->
		to(S_IDLE); LOG(("S: %d serves, not registered\n", sinc)); RULE("restart IDLE silent, it has served: TIMEOUT") }
	:: atomic { sst == S_R_IDLE && T_REG && sinc != NONE && !dead(sinc) && !sc[sinc] && !jserves ->
		to(S_R_IDLE); LOG(("S: cold-started %d silent, kills it\n", sinc)); skill(sinc); ACT(A_KILL_O);
		RULE("restart IDLE silent, cold start never ended: TIMEOUT") }
#ifdef M_COLD_TIMEOUT
	:: atomic { sst == S_R_IDLE && sinc != NONE && !sc[sinc] ->
		LOG(("S: nobody registered in time\n")); to(S_COLD) }
#endif
	:: atomic { sst == S_R_COMMITTED && HASN ->
		d2s[ssucc]?m,h,v; assert(m == REG && v == P_SERVING); to(S_PROBATION);
		LOG(("S: N%d re-registered as serving\n", ssucc)); RULE("restart COMMITTED N registers: N_SERVING") }
	:: atomic { sst == S_R_COMMITTED && GONE(ssucc) ->
		to(S_ABORT); LOG(("S: N%d is dead\n", ssucc)); RULE("restart COMMITTED N dead: NOW") }
	:: atomic { sst == S_R_COMMITTED && T_REG && !dead(ssucc) && !sc[ssucc] ->
		give_up(); RULE("restart COMMITTED N silent: TIMEOUT") }

	/* ---- idle: supervises, starts handoffs ----------------------------------- */
	:: atomic { sst == S_IDLE && GONE(sinc) ->
		to(S_COLD); sclose(sinc); soc = 0; LOG(("S: incumbent died\n")); RULE("IDLE incumbent dead: NOW") }
#ifdef ASK
	:: atomic { sst == S_IDLE && sstop && HERE(sinc) -> term_o(S_STOPPING); RULE("stop: NOW") }
	:: atomic { sst == S_IDLE && MAY_RESTART && HERE(sinc) ->
		nask--; term_o(S_RESTARTING); RULE("-") }
#endif
	:: atomic { sst == S_IDLE && !sstop && HASO -> recvO();
		if
		:: IS_SERVING ->
#ifdef M_IDLE_NO_FINAL
			skip
#else
			to(I_FINAL); RULE("IDLE registers again: O_SERVING")
#endif
		:: IS_STANDBY ->
			assert(SERVES_OR_LOST);		/* the attempt has ended by its Status */
			stands_by(S_IDLE); RULE("IDLE registers again: O_STANDBY")
#ifndef M_STANDBY_NO_FINAL
		:: IS_STATUS && sstand -> to(I_FINAL); RULE("IDLE registers again: O_STATUS")
#else
		:: IS_STATUS && sstand -> sstand = 0
#endif
		:: IS_STATUS && !sstand -> to(S_IDLE); RULE("-: O_STATUS")	/* said twice */
		:: m != REG && !IS_STATUS	/* stale */
#ifdef M_UNHEARD
		:: m == REG && v == P_SERVING
#endif
		fi }
	:: atomic { sst == S_IDLE && !sstop && soc && !sstand && HERE(sinc) && jh < NHAND && (jh+1 < NHAND || STARTLAST) && ROOM ->
		to(S_SPAWNING); sh = jh + 1; jh = sh; jout[sh] = O_UNBORN; ssucc = NONE;
		ACT(A_BEGIN_ATTEMPT); ACT(A_SPAWN); spawn_any();
		LOG(("S: handoff %d begins, spawned %d\n", sh, ssucc)); RULE("IDLE start: START") }
	:: atomic { sst == S_SPAWNING && sok -> to(S_NAMING); ACT(A_JOURNAL_STARTED);
		if
#if defined(M_NO_STARTED)
		:: true -> jout[sh] = O_NONE
#elif defined(M_NO_JPID)
		:: true -> jph = J_STARTED; jout[sh] = O_NONE
#else
		:: true -> jph = J_STARTED; jsucc = ssucc; jout[sh] = O_NONE
#endif
		FAULTY
		fi;
		RULE("IDLE start: SPAWNED") }
#ifdef M_MUTE_FORK
	:: atomic { sst == S_SPAWNING && !sok -> to(S_IDLE) }
#else
	:: atomic { sst == S_SPAWNING && !sok -> to(S_ABORT); RULE("IDLE start: SPAWN_FAILED") }
#endif
	:: atomic { sst == S_NAMING && sok -> to(S_WARM); release(ssucc); ACT(A_RELEASE); RULE("IDLE start: JOURNALED") }
	:: atomic { sst == S_NAMING && !sok -> give_up(); RULE("IDLE start: JOURNAL_FAILED") }

#ifdef REEXEC
	/* ---- another binary of S: only when nothing is under way -------------------- */
#if defined(M_REEXEC_ANY)	/* ... or in the middle of a handoff, believing that nothing is */
	:: atomic { sst >= S_WARM && sst <= S_RESUMING && nre && sinc != NONE && soc -> to(S_IDLE); nre--;
		ssucc = NONE; sh = 0; srev = 0; smay = 0; sprep = 0; LOG(("S: re-executes itself\n")) }
#elif defined(M_REEXEC_AWAY)	/* ... believing that O is connected */
	:: atomic { sst == S_IDLE && !sstop && !sstand && HERE(sinc) && nre -> reexec(); RULE("re-exec asked for: REEXEC") }
#else
	:: atomic { sst == S_IDLE && !sstop && soc && !sstand && HERE(sinc) && nre -> reexec(); RULE("re-exec asked for: REEXEC") }
#endif
#endif

	/* ---- warm-up --------------------------------------------------------------- */
	:: atomic { sst == S_WARM && HASN -> d2s[ssucc]?m,h,v;
		if
		:: OGONE -> go_on(); RULE("WARM Hello, O dead: N_HELLO")
#ifdef M_AWAY
		:: !soc -> prepare()
#else
		:: !soc && HERE(sinc) -> to(S_AWAIT_O); RULE("WARM Hello, O away: N_HELLO")
#endif
		:: soc -> prepare(); RULE("WARM Hello, O alive: N_HELLO") /* dead: EPIPE, then DRAIN's rule */
		fi }
	:: atomic { sst == S_WARM && HASO -> recvO();
		if
#ifndef M_WARM_NO_FINAL
		:: IS_SERVING -> to(S_WARM); final(); RULE("WARM registers again: O_SERVING")
#endif
		:: else
		fi }
	:: atomic { sst == S_WARM && GONE(ssucc) -> to(S_ABORT); RULE("WARM N dead: N_GONE") }
#ifdef O_DEAD_ABORTS
	:: atomic { sst == S_WARM && GONE(sinc) -> give_up() }
#endif
#ifdef M_GO_NOHELLO
	:: atomic { sst == S_WARM && OGONE -> go_on() }
#endif
	:: atomic { sst == S_WARM && T_WARM -> give_up(); RULE("WARM T_warm: TIMEOUT; WARM asked: ABORT") }
	:: atomic { sst == S_AWAIT_O && OGONE -> go_on(); RULE("WARM Hello, O dead: NOW") }
	:: atomic { sst == S_AWAIT_O && HASO -> recvO();
		if
		:: m == REG && v == P_SERVING ->
#ifndef M_AWAY_NO_FINAL
			final();
#endif
			prepare(); RULE("WARM Hello, O alive: O_SERVING")
		:: else
		fi }
	:: atomic { sst == S_AWAIT_O && GONE(ssucc) -> to(S_ABORT); RULE("WARM N dead: N_GONE") }
	:: atomic { sst == S_AWAIT_O && T_AWAIT -> give_up(); RULE("WARM Hello, O away: TIMEOUT; WARM asked: ABORT") }

	/* ---- drain and seal O ------------------------------------------------------ */
	:: atomic { sst == S_DRAIN && HASO -> recvO();
		if
		:: m == DRAINED && ISH(h) -> to(S_SEAL); ssend(sinc, SEALREQ, sh, 0); ACT(A_SEAL_REQUEST); RULE("DRAIN Drained: O_DRAINED")
		:: IS_STATUS -> give_up(); RULE("DRAIN Status of O: O_STATUS")	/* O resumed by itself */
		:: IS_SERVING -> give_up(); RULE("DRAIN Status of O: O_SERVING")
		:: IS_STANDBY -> give_up(); RULE("DRAIN Status of O: O_STANDBY")
		:: else						/* stale: dropped */
		fi }
	:: atomic { sst == S_SEAL && HASO -> recvO();
		if
		:: m == SEALOK && ISH(h) -> to(S_READY); srev = v; ssend(ssucc, BEGIN, sh, 0); ACT(A_BEGIN_SEALED); RULE("SEAL SealComplete: O_SEALED")
		:: m == SEALFAIL && ISH(h) -> give_up(); RULE("SEAL SealFailed: O_SEAL_FAILED O_GIVE_FAILED")
		:: IS_STATUS -> give_up(); RULE("SEAL Status of O: O_STATUS")
		:: IS_SERVING -> give_up(); RULE("SEAL Status of O: O_SERVING")
		:: IS_STANDBY -> give_up(); RULE("SEAL Status of O: O_STANDBY")
		:: else
		fi }
	:: atomic { sst == S_DRAIN && GONE(ssucc) -> to(S_ABORT); LOG(("S: N died\n")); RULE("DRAIN N dead: N_GONE") }
	:: atomic { sst == S_SEAL && GONE(ssucc) -> to(S_ABORT); LOG(("S: N died\n")); RULE("SEAL N dead: N_GONE") }
	:: atomic { sst == S_DRAIN && OGONE -> go_on(); RULE("DRAIN O dead: NOW") }
	:: atomic { sst == S_SEAL && OGONE -> go_on(); RULE("SEAL O dead: NOW") }
	:: atomic { sst == S_DRAIN && T_DRAIN -> give_up(); RULE("DRAIN T_drain: TIMEOUT O_SILENT N_SILENT; DRAIN asked: ABORT") }
	:: atomic { sst == S_SEAL && T_SEAL -> give_up(); RULE("SEAL T_seal: TIMEOUT O_SILENT N_SILENT; SEAL asked: ABORT") }
#ifdef M_GO_TIMER	/* O is silent, so it "must be dead" */
	:: atomic { (sst == S_DRAIN && T_DRAIN || sst == S_SEAL && T_SEAL) && !dead(sinc) -> go_on() }
#endif

	/* ---- begin / ready: from here on O's death does not matter ------------------ */
	:: atomic { sst == S_READY && HASN ->
		d2s[ssucc]?m,h,v; assert(m == READY); heard_ready(srev != UNSEALED);
#ifdef M_NO_REV
		if
		:: v != BAD -> to(S_CHECK)
		:: v == BAD -> give_up()
		fi
#else
		if
		:: v != BAD && (v == srev || srev == UNSEALED) ->
			to(S_CHECK); ACT(A_READ_O); RULE("READY Ready, healthy, rev == sealed rev: N_READY")
		:: v == BAD || (v != srev && srev != UNSEALED) ->
			give_up(); LOG(("S: Ready refused\n")); RULE("READY other Ready: N_READY")
		fi
#endif
		}
	:: atomic { sst == S_READY && HASO -> recvO();
		if
		:: IS_STATUS -> give_up(); RULE("READY Status of O: O_STATUS")
		:: IS_SERVING -> give_up(); RULE("READY Status of O: O_SERVING")
		:: else
		fi }
	:: atomic { sst == S_READY && GONE(ssucc) -> to(S_ABORT); RULE("READY N dead: N_GONE") }
	:: atomic { sst == S_READY && T_READY -> give_up(); LOG(("S: Ready timer\n"));
		RULE("READY T_ready: TIMEOUT N_SILENT; READY asked: ABORT") }
	/* Status(h) of an O that has served again, and perhaps died? */
	:: atomic { sst == S_CHECK && HASO -> recvO();
		if
		:: IS_STATUS -> give_up(); RULE("READY Status of O: O_STATUS")
		:: IS_SERVING -> give_up(); RULE("READY Status of O: O_SERVING")
		:: else
		fi }

	/* ---- commit ------------------------------------------------------------------- */
#ifdef M_READY_FIRST	/* believes Ready while O's messages lie unread */
	:: atomic { sst == S_CHECK ->
#else
	:: atomic { sst == S_CHECK && NOTHING_OF_O ->
#endif
		to(S_DECIDING); ACT(A_JOURNAL_COMMITTED); sok = 1;
		if
#ifdef M_GO_NOJOURNAL	/* "there is no O to roll back to" */
		:: srev != UNSEALED -> jph = J_COMMITTED; jsucc = ssucc
		:: else
#elif !defined(M_JOURNAL_LATE)
		:: true -> jph = J_COMMITTED; jsucc = ssucc
#else
		:: true
#endif
		FAULTY
		fi;
		RULE("READY Ready, healthy, rev == sealed rev: O_READ") }
#ifdef M_JFAIL_GOES_ON
	:: atomic { sst == S_DECIDING ->
#else
	:: atomic { sst == S_DECIDING && sok ->
#endif
		decided[sh] = (jph == J_COMMITTED); ssend(ssucc, COMMIT, sh, 0); ACT(A_COMMIT_N);
#ifdef M_JOURNAL_LATE
		decided[sh] = 1;
#endif
#ifdef M_GO_NOJOURNAL
		decided[sh] = 1;
#endif
#ifdef M_COMMIT_BOTH
		ssend(sinc, COMMIT, sh, 0); to(S_OEXIT);
#else
		to(S_TAKE);
#endif
		LOG(("S: journal COMMITTED(%d), Commit -> N%d\n", sh, ssucc)); RULE("READY Ready, healthy, rev == sealed rev: JOURNALED") }
	:: atomic { sst == S_DECIDING && !sok -> give_up(); RULE("READY Ready, healthy, rev == sealed rev: JOURNAL_FAILED") }
	:: atomic { sst == S_TAKE && HASN ->
		d2s[ssucc]?m,h,v;
#ifdef M_JOURNAL_LATE
		jph = J_COMMITTED; jsucc = ssucc;
#endif
		if
		:: m == SERVING -> to(S_PROBATION); smay = 1; ACT(A_MAY); RULE("TAKE Status of N: N_STATUS")
		:: m == REG -> to(S_PROBATION); smay = 1; ACT(A_MAY); RULE("TAKE Status of N: N_SERVING")
		fi;
		LOG(("S: N%d is serving\n", ssucc)) }
	:: atomic { sst == S_TAKE && NGONE(ssucc) -> to(S_ABORT); RULE("TAKE N dead: N_GONE") }
	:: atomic { sst == S_TAKE && T_TAKE && !dead(ssucc) && NOTSERVING(ssucc) ->
		give_up(); RULE("TAKE T_take: TIMEOUT N_SILENT") }
	:: atomic { sst == S_PROBATION -> to(S_TELL_O); LOG(("S: probation over\n")); RULE("PROBATION T_prob: NOW TIMEOUT") }
	:: atomic { sst == S_PROBATION && GONE(ssucc) ->
		to(S_ABORT); LOG(("S: N%d died in probation\n", ssucc)); RULE("PROBATION N dead: N_GONE") }
	:: atomic { sst == S_TELL_O && GONE(ssucc) -> to(S_ABORT); RULE("TELL_O N dead: NOW") }
	:: atomic { sst == S_TELL_O && soc && HERE(sinc) ->
		to(S_OEXIT); ssend(sinc, COMMIT, sh, 0); ACT(A_COMMIT_O); LOG(("S: Commit -> O%d\n", sinc)); RULE("TELL_O O connected: NOW") }
	:: atomic { sst == S_TELL_O && GONE(sinc) -> committed(); RULE("TELL_O O dead: NOW") }
	:: atomic { sst == S_TELL_O && T_REG && sinc != NONE && !dead(sinc) && !soc ->
		to(S_TELL_O); kill_o(); RULE("TELL_O T_reg: TIMEOUT") }
	:: atomic { sst == S_OEXIT && HASO -> recvO();
		if
		:: IS_STATUS -> assert(dead(ssucc) || st[ssucc] == D_DYING); /* O has the flock, so N is gone */
			give_up(); LOG(("S: O%d serves again\n", sinc)); RULE("OEXIT Status of O: O_STATUS")
		:: IS_SERVING -> assert(dead(ssucc) || st[ssucc] == D_DYING);
			give_up(); LOG(("S: O%d serves again\n", sinc)); RULE("OEXIT Status of O: O_SERVING")
		:: IS_STANDBY ->
#ifdef M_COMMIT_O_ONCE
			skip
#else
			to(S_OEXIT); ssend(sinc, COMMIT, sh, 0); ACT(A_COMMIT_O); RULE("OEXIT O registers again: O_STANDBY")
#endif
		:: else
		fi }
	:: atomic { sst == S_OEXIT && GONE(sinc) -> committed(); RULE("OEXIT O dead: NOW") }
	:: atomic { sst == S_OEXIT && T_OEXIT && !dead(sinc) && NALIVE(ssucc) ->
		to(S_OEXIT); LOG(("S: O%d does not exit, kills it\n", sinc)); skill(sinc); ACT(A_KILL_O); RULE("OEXIT T_oexit: TIMEOUT") }
	:: atomic { sst == I_FINAL -> to(S_IDLE); final(); RULE("+") }

	/* ---- abort / roll back: N is dead ---------------------------------------------------- */
	:: atomic { sst == S_ABORT && HASN -> d2s[ssucc]?m,h,v;
		if
#ifndef M_NO_DRAIN
		:: m == SERVING -> to(S_ABORT); smay = 1; ACT(A_MAY); RULE("ABORT Status in N's socket: N_STATUS")
#endif
		:: else
		fi }
	:: atomic { sst == S_ABORT && HASO -> recvO();
		if
#ifndef M_ABORT_NO_FINAL
		:: IS_SERVING && !KNEW -> to(S_ABORT); final(); RULE("ABORT registers again: O_SERVING")
#endif
		:: IS_SERVING && KNEW -> to(S_ABORT); RULE("-: O_SERVING")	/* by the attempt's end */
		:: else
		fi }
	:: atomic { sst == S_ABORT && GONE(ssucc) ->
		to(S_BACK); sclose(ssucc); ssucc = NONE; RULE("ABORT N dead: NOW") }
	:: atomic { sst == S_BACK && !KNEW && HERE(sinc) -> not_committed(S_IDLE); RULE("ABORT O untouched: NOW") }
	:: atomic { sst == S_BACK && KNEW && soc && HERE(sinc) ->
		to(S_RESUMING); ssend(sinc, RESUME, sh, 0); ACT(A_RESUME_O);
		LOG(("S: Resume -> O%d\n", sinc)); RULE("ABORT O connected: NOW") }
#ifdef M_NO_ACK
	:: atomic { sst == S_RESUMING -> not_committed(I_FINAL) }
#endif
	:: atomic { sst == S_BACK && GONE(sinc) -> both_dead(); RULE("ABORT O dead: NOW") }
	:: atomic { sst == S_BACK && KNEW && T_REG && sinc != NONE && !dead(sinc) && !soc ->
		to(S_BACK); kill_o(); RULE("ABORT T_reg: TIMEOUT") }
	:: atomic { sst == S_RESUMING && HASO -> recvO();
		if
		:: IS_STATUS -> not_committed(BACK_FINAL); RULE("RESUMING Status of O: O_STATUS")
		:: IS_SERVING -> not_committed(BACK_FINAL); RULE("RESUMING Status of O: O_SERVING")
		:: IS_STANDBY ->
#ifdef M_RESUME_ONCE
			skip
#else
			to(S_RESUMING); ssend(sinc, RESUME, sh, 0); ACT(A_RESUME_O); RULE("RESUMING O registers again: O_STANDBY")
#endif
		:: else				/* late Drained, SealComplete, ... */
		fi }
	:: atomic { sst == S_RESUMING && T_RESUME && !dead(sinc) ->
		to(S_RESUMING); LOG(("S: O%d does not confirm, kills it\n", sinc)); skill(sinc); ACT(A_KILL_O); RULE("RESUMING T_resume: TIMEOUT") }
	:: atomic { sst == S_RESUMING && GONE(sinc) -> both_dead(); RULE("RESUMING O dead: NOW") }

	/* ---- cold start: the same messages, nobody to seal --------------------------------- */
#ifndef M_COLD_STRANGER
	:: atomic { sst == S_COLD && !sstop && SOMEONE -> found() }
	/* the start under way gets no flock */
	:: atomic { ENDS && SOMEONE -> end_start(); RULE("COLD found: O_FOUND") }
#endif
	/* its answers count for nothing any more */
	:: atomic { sst == S_COLD_ENDING && HASN -> d2s[ssucc]?_,_,_ }
	:: atomic { sst == S_COLD && !sstop && !SOMEONE && (sL || ALLDEAD) && ROOM ->	/* bind: EADDRINUSE as long */
		to(S_COLD_SPAWN);			/* as anyone has the sockets */
		sL = 1; scold = 1; sh = 0; ssucc = NONE; ACT(A_SPAWN_COLD); spawn_any();
		LOG(("S: cold start v%d\n", jver)); RULE("COLD listeners: LISTENING") }
	:: atomic { sst == S_COLD_SPAWN && sok -> to(S_COLD_NAME); ACT(A_JOURNAL_COLD);
		if
#ifndef M_COLD_NOPID
		:: true -> jinc = ssucc; jserves = 0
#else
		:: true
#endif
		FAULTY
		fi;
		RULE("COLD spawn: SPAWNED") }
	:: atomic { sst == S_COLD_SPAWN && !sok -> to(S_COLD); ACT(A_COLD_FAILED); RULE("COLD spawn: SPAWN_FAILED") }
	:: atomic { sst == S_COLD_NAME && sok -> to(S_COLD_WARM); release(ssucc); ACT(A_RELEASE); RULE("COLD pid: JOURNALED") }
	:: atomic { sst == S_COLD_NAME && !sok -> to(S_COLD_WARM); skill(ssucc); ACT(A_KILL_N); RULE("COLD pid: JOURNAL_FAILED") }
	:: atomic { sst == S_COLD_WARM && HASN -> d2s[ssucc]?m,h,v;
		to(S_COLD_READY); ssend(ssucc, BEGIN, sh, 1); ACT(A_BEGIN_NOTHING); RULE("COLD Hello: N_HELLO") }
	:: atomic { sst == S_COLD_READY && HASN -> d2s[ssucc]?m,h,v; assert(m == READY); heard_ready(false);
		if
		:: v != BAD -> to(S_COLD_TAKE); ssend(ssucc, COMMIT, sh, 0); ACT(A_COMMIT_N); RULE("COLD Ready: N_READY")
		:: v == BAD -> to(S_COLD_READY); skill(ssucc); ACT(A_KILL_N); RULE("COLD Ready: N_READY")
		fi }
	:: atomic { sst == S_COLD_TAKE && HASN -> d2s[ssucc]?m,h,v;
		if
		:: m == SERVING -> cold_done(); RULE("COLD Status: N_STATUS")
#ifdef M_COLD_UNHEARD
		:: m == REG
#else
		:: m == REG -> cold_done(); RULE("COLD Status: N_SERVING")
#endif
		fi }
	:: atomic { (sst == S_COLD_WARM || sst == S_COLD_READY || sst == S_COLD_ENDING || sst == S_COLD_TAKE) &&
		GONE(ssucc) -> to(S_COLD); sclose(ssucc); ssucc = NONE; ACT(A_COLD_FAILED); RULE("COLD child dead: N_GONE") }
#ifdef HANG	/* no fallback left, so this timer is long enough to be right */
	:: atomic { (sst == S_COLD_WARM || sst == S_COLD_READY || sst == S_COLD_TAKE) &&
		!dead(ssucc) && hg[ssucc] -> to(sst); LOG(("S: cold start hangs, kills it\n")); skill(ssucc); ACT(A_KILL_N);
		RULE("COLD child hangs: TIMEOUT") }
#endif
#ifdef ASK
	/* ---- a stop, a restart of the daemon: asked for at any time ------------------------- */
	:: atomic { MAY_STOP && KILLS -> stop_asked(); give_up(); RULE("stop: STOP") }
	:: atomic { MAY_STOP && ENDS -> stop_asked(); end_start(); RULE("stop: STOP") }
	:: atomic { MAY_STOP && sst == S_COLD_TAKE ->
		stop_asked(); promote_cold(S_STOPPING); RULE("stop: STOP") }
	:: atomic { MAY_STOP && sst < S_DOWN && !KILLS && !ENDS && !ANSWERS && sst != S_COLD_TAKE -> stop_asked() }
	:: atomic { MAY_RESTART && ENDS -> nask--; end_start(); RULE("restart asked for: RESTART") }
	:: atomic { MAY_RESTART && sst == S_COLD_TAKE ->
		nask--; promote_cold(S_RESTARTING); RULE("restart asked for: RESTART") }
	:: atomic { sst == S_STOPPING && GONE(sinc) -> to(S_STOPPED); ACT(A_END); the_end(); RULE("stop: NOW") }
	:: atomic { sst == S_STOPPING && T_STOP && HERE(sinc) -> to(S_STOPPING); skill(sinc); ACT(A_KILL_O); RULE("stop: TIMEOUT") }
	:: atomic { sst == S_RESTARTING && GONE(sinc) -> to(S_COLD); sclose(sinc); soc = 0; RULE("restart asked for: NOW") }
	:: atomic { sst == S_RESTARTING && T_STOP && HERE(sinc) ->
		to(S_RESTARTING); skill(sinc); ACT(A_KILL_O); RULE("restart asked for: TIMEOUT") }
	:: atomic { (sst == S_STOPPING || sst == S_RESTARTING) && HASO -> recvO() }
#ifdef M_STOP_BLIND	/* who waits to register is not looked at */
	:: atomic { sst == S_COLD && sstop -> to(S_STOPPED); the_end() }
#else
	:: atomic { sst == S_COLD && sstop -> to(S_COLD_STOP); ACT(A_READ_O); RULE("stop: NOW") }
	:: atomic { sst == S_COLD_STOP && SOMEONE -> found() }
	:: atomic { sst == S_COLD_STOP && !SOMEONE -> to(S_STOPPED); ACT(A_END); the_end(); RULE("stop: O_READ") }
#endif
#endif
	/* ---- what changes nothing here; a Hello of O: it is connected again. Not where S waits
	 * for the answer of an action, nor where its next step needs no event ---------------- */
	:: atomic { HASO && (sst == S_TAKE || sst == S_PROBATION || sst == S_TELL_O ||
		(sst == S_BACK && KNEW) || sst == S_R_COMMITTED) -> recvO() }
	:: atomic { HASN && (sst == S_PROBATION || sst == S_TELL_O || sst == S_OEXIT) -> d2s[ssucc]?_,_,_ }
#if defined(BREAK) || defined(SLOWDEATH)
	:: atomic { LOST(0) -> lost(0) }
	:: atomic { LOST(1) -> lost(1) }
	:: atomic { LOST(2) -> lost(2) }
#endif
#ifdef BREAK
	:: atomic { ncr && MAYBREAK && sst < S_DOWN && sinc != NONE && sc[sinc] && up[sinc] && soc -> breakO() }
	:: atomic { ncr && F && sst < S_DOWN && ssucc != NONE && sc[ssucc] && up[ssucc] -> breakN() }
#endif
	od
}

/* ================================================================ faults == */
inline crashD(k)
{	LOG(("*** daemon %d crashes\n", k));
	if
	:: wr[k] -> acked = disk	/* its own unflushed acks: forgiven */
	:: else
	fi;
#ifdef SLOWDEATH
	st[k] = D_DYING; up[k] = 0; wr[k] = 0; hg[k] = 0; purge(s2d[k]);
#elif defined(HELPER)
	if
	:: true -> die(k)
	:: lock == k -> die(k); lock = HELPED
	fi;
#else
	die(k);
#endif
	ncr--
}
inline pds(k)		/* prctl(PR_SET_PDEATHSIG, SIGKILL), cleared on Commit */
{	if
	:: WARMING(k) -> die(k)
	:: st[k] == D_START		/* its library is not open yet */
#ifdef RELATION		/* where it cannot be set, EOF has to do */
	:: WARMING(k) && !hg[k]
#endif
	:: else
	fi
}
#ifdef ONLY_O
#define MAYDIE(k) (!dead(k) && st[k] != D_DYING && k != ssucc)
#else
#define MAYDIE(k) (!dead(k) && st[k] != D_DYING)
#endif
#define MAYHANG(k) (!hg[k] && st[k] != D_EXIT && st[k] != D_GATE && st[k] != D_SERVE && st[k] != I_TAKE)

proctype Crash()
{	do
#ifndef NOCR_D
	:: atomic { ncr && FC && MAYDIE(0) -> crashD(0) }
	:: atomic { ncr && FC && MAYDIE(1) -> crashD(1) }
	:: atomic { ncr && FC && MAYDIE(2) -> crashD(2) }
#endif
#ifdef HANG
	:: atomic { ncr && F && MAYHANG(0) -> hg[0] = 1; ncr--; LOG(("*** daemon 0 hangs\n")) }
	:: atomic { ncr && F && MAYHANG(1) -> hg[1] = 1; ncr--; LOG(("*** daemon 1 hangs\n")) }
	:: atomic { ncr && F && MAYHANG(2) -> hg[2] = 1; ncr--; LOG(("*** daemon 2 hangs\n")) }
#endif
#ifdef HANG_S
	:: atomic { ncr && sst < S_DOWN -> hgS = 1; ncr = 0; LOG(("*** S hangs\n")) }
#endif
#ifndef NOCR_S
	:: atomic { ncr && F && sst != S_DOWN && sst != S_STOPPED ->
		LOG(("*** S crashes\n"));
		if
		:: jph == J_IDLE && jout[jh] == O_UNBORN -> jout[jh] = O_UNKNOWN
		:: else
		fi;
		sst = S_DOWN; sinc = NONE; ssucc = NONE; sh = 0; srev = 0;
		scold = 0; smay = 0; sL = 0; soc = 0; sstand = 0; sprep = 0; sok = 0; sstop = 0; ncr--;
		sc[0] = 0; purge(d2s[0]);
		sc[1] = 0; purge(d2s[1]);
		sc[2] = 0; purge(d2s[2]);
#ifdef PDEATHSIG
		pds(0); pds(1); pds(2);
#endif
		skip }
#endif
	:: atomic { ncr = 0; break }		/* no further fault */
	od
}

/* ======================= convergence: checked in every quiescent state ===== */
proctype Check()
{	byte k, n, who, exp;
	atomic { timeout ->
		LOG(("--- quiescent: S=%d outcome=%d lock=%d\n", sst, jout[NHAND], lock));
		do
		:: k < NSLOT ->
			if
			:: st[k] == D_SERVE && sst != S_STOPPED -> n++; who = k; assert(wr[k] && lock == k)
			:: st[k] == D_SEALED && hgS	/* standby of a hung S */
			:: st[k] == D_GATE && hgS	/* its pid is not written down: it does nothing */
			:: sst == S_STOPPED && k == gleft	/* nobody knew that it is of this service */
			:: else -> assert(dead(k))	/* no orphan, nobody waiting */
			fi; k++
		:: else -> break
		od;
		assert(n == (sst != S_STOPPED));	/* exactly one serves, or nobody */
		if
		:: hgS -> goto done
		:: sst == S_STOPPED ->
			k = 1;
			do
			:: k <= NHAND -> assert(REPORTED(k) || k > jh); k++
			:: else -> break
			od;
			assert(jph == J_IDLE); goto done
		:: else
		fi;
		assert(sst == S_IDLE && jph == J_IDLE);	/* the handoff has ended     */
		assert(who == sinc && who == jinc && up[who] && sc[who]);
		k = 1;
		do
		:: k <= NHAND ->
			assert(REPORTED(k) || k > jh);			/* reported  */
			assert(!(jout[k] == O_ABORTED && nserv[k]));	/* invisible */
			if
			:: jout[k] == O_COMMITTED -> exp = k
			:: else
			fi; k++
		:: else -> break
		od;
		assert(ver[who] == exp && jver == exp);	/* committed <=> N's binary  */
		assert(fmt == exp);			/* and its on-disk format    */
#ifdef CLEAN_LAST
		assert(jh < NHAND || jout[NHAND] == O_COMMITTED);
#endif
#ifdef ONLY_O
		assert(jh == 0 || jout[jh] == O_COMMITTED);
#endif
#ifdef REACH		/* probe.sh: violated = there is such an end */
		assert(!(REACH));
#endif
done:		skip }
}

#ifdef HELPER
proctype Helper()	/* it ends, some time */
{
end:	do
	:: atomic { lock == HELPED -> lock = NONE; LOG(("--- the helper ends\n")) }
	od
}
#endif

init { atomic {
	st[0] = D_SERVE; wr[0] = 1; up[0] = 1; sc[0] = 1;
	run S(); run D(0); run D(1); run D(2); run Crash(); run Check();
#ifdef HELPER
	run Helper()
#endif
	} }
