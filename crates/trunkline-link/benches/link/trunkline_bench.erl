%% The same work by Erlang's distribution: what `cargo xtask bench link` compares with.
-module(trunkline_bench).
-export([serve/0, dial/1]).

%% The receiving node: a registered process that counts nothing and answers what asks.
serve() ->
    register(m, self()),
    io:format("ready~n"),
    loop().

loop() ->
    receive
        {sync, From} -> From ! synced, loop();
        {call, From, Ref, Body} -> From ! {Ref, Body}, loop();
        {pid, From} -> From ! {pid, self()}, loop();
        stop -> halt(0);
        _ -> loop()
    end.

%% The sending node: `one_way` or `call`, the peer, bytes, callers, messages of each.
dial([Case, Peer, Size, Callers, Each]) ->
    pong = net_adm:ping(Peer),
    {m, Peer} ! {pid, self()},
    To = receive {pid, Pid} -> Pid end,
    Body = binary:copy(<<7>>, number(Size)),
    run(Case, To, Body, number(Callers), number(Each) div 20),
    {Wall, Median} = run(Case, To, Body, number(Callers), number(Each)),
    io:format("wall_s ~p~nmessages ~p~nmedian_us ~p~n",
              [Wall, number(Callers) * number(Each), Median]),
    To ! stop,
    timer:sleep(200),
    halt(0).

number(Atom) -> list_to_integer(atom_to_list(Atom)).

run(Case, To, Body, Callers, Each) ->
    Self = self(),
    Begin = erlang:monotonic_time(nanosecond),
    Work = fun() -> Self ! {done, work(Case, To, Body, Each, [])} end,
    [spawn(Work) || _ <- lists:seq(1, Callers)],
    Times = lists:append([receive {done, T} -> T end || _ <- lists:seq(1, Callers)]),
    Wall = (erlang:monotonic_time(nanosecond) - Begin) / 1.0e9,
    Median = case lists:sort(Times) of
                 [] -> 0.0;
                 Sorted -> lists:nth((length(Sorted) + 1) div 2, Sorted) / 1.0e3
             end,
    {Wall, Median}.

work(one_way, To, _, 0, _) ->
    To ! {sync, self()},
    receive synced -> [] end;
work(one_way, To, Body, Left, _) ->
    To ! Body,
    work(one_way, To, Body, Left - 1, []);
work(call, _, _, 0, Times) ->
    Times;
work(call, To, Body, Left, Times) ->
    Ref = make_ref(),
    Begin = erlang:monotonic_time(nanosecond),
    To ! {call, self(), Ref, Body},
    receive {Ref, _} -> ok end,
    work(call, To, Body, Left - 1, [erlang:monotonic_time(nanosecond) - Begin | Times]).
