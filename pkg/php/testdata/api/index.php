<?php

/*
 * A small stand-in for the PHP API, in PHP: router script for `php -S`. It has the
 * envelopes, checks and traps of the Go stand-in in package phptest, and answers
 * the same `_behave` words, so that the client is tested against a real PHP too.
 *
 * Environment: TEBRA_INTERNAL_API_KEY, the key to ask for; PHPTEST_JOURNAL, optional, a
 * file that gets a line of JSON for each call, as phptest's journal does.
 *
 * Differences, because `php -S` can't do otherwise: drop answers with a status line
 * and closes the connection within the body; hang ends after 10 s in the same way. Rules
 * (phptest.Rule) don't exist here.
 */

declare(strict_types=1);

const THROTTLE_TEXT = '429: GetPatients endpoint requested more than allowed over time interval 1000 milliseconds';
const WRITES = ['createAppointment', 'updateAppointment'];
const ACTING_WORDS = ['ok', 'text', 'empty', 'half', 'trickle', 'huge'];

final class Invalid extends Exception
{
}

main();

function main(): void
{
    $key = getenv('TEBRA_INTERNAL_API_KEY') ?: '';
    if ($key === '') {
        fail(500, 'configuration_error', 'Server misconfiguration');
        return;
    }
    if (!hash_equals($key, $_SERVER['HTTP_X_API_KEY'] ?? '')) {
        fail(401, 'authentication_error', 'Unauthorized');
        return;
    }
    if ($_SERVER['REQUEST_METHOD'] !== 'POST') {
        fail(405, 'method_error', 'Method not allowed');
        return;
    }
    $body = json_decode((string) file_get_contents('php://input'), true);
    if (!is_array($body)) {
        fail(400, 'json_error', 'Invalid JSON in request body');
        return;
    }
    $params = $body['params'] ?? [];
    if (!is_array($params) || ($params !== [] && array_is_list($params))) {
        fail(400, 'json_error', 'params must be an object');
        return;
    }
    try {
        answer((string) ($body['action'] ?? ''), $params);
    } catch (Invalid $e) {
        fail(400, 'validation_error', $e->getMessage());
    }
}

/** Executes the call, where the behaviour lets it, and replies. */
function answer(string $action, array $params): void
{
    $do = behaviour($params['_behave'] ?? 'ok');
    usleep($do['latency']);
    if (!$do['act']) {
        journal($action, false);
        reply($do, null);
        return;
    }
    try {
        $data = run($action, $params);
    } catch (Invalid $e) {
        journal($action, false);
        throw $e;
    }
    journal($action, true);
    reply($do, ['success' => true, 'data' => $data]);
}

/** Reads _behave: words joined by commas, as package phptest documents them. */
function behaviour(mixed $words): array
{
    if (!is_string($words)) {
        throw new Invalid('_behave must be a string');
    }
    $do = ['word' => 'ok', 'act' => true, 'arg' => '', 'latency' => 0];
    foreach (explode(',', $words) as $part) {
        [$name, $arg] = explode('=', trim($part), 2) + [1 => ''];
        if ($name === 'latency') {
            $do['latency'] = microseconds($arg);
            continue;
        }
        if ($name === 'retry-after') {
            header('Retry-After: ' . $arg);
            continue;
        }
        $word = preg_replace('/^act-/', '', $name);
        $do['word'] = $word;
        $do['arg'] = $arg;
        $do['act'] = $word !== $name || in_array($word, ACTING_WORDS, true);
    }
    return $do;
}

/** Reads a duration in the form of Go, in ms or s. */
function microseconds(string $duration): int
{
    if (!preg_match('/^(\d+)(ms|s)$/', $duration, $m)) {
        throw new Invalid('a duration such as 250ms is needed');
    }
    return (int) $m[1] * ($m[2] === 's' ? 1000000 : 1000);
}

/** Does what the action says, and returns its data. */
function run(string $action, array $params): array
{
    switch ($action) {
        case 'syncSchedule':
            $date = day($params, 'date', gmdate('Y-m-d'));
            $list = appointments($date, $date);
            return [
                'date' => $date,
                'appointments' => ['success' => true, 'appointments' => $list, 'count' => count($list)],
            ];
        case 'getAppointments':
            $from = day($params, 'fromDate', null);
            $to = day($params, 'toDate', null);
            if ($from > $to) {
                throw new Invalid('fromDate must be before or equal to toDate');
            }
            $list = appointments($from, $to);
            return ['success' => true, 'appointments' => $list, 'count' => count($list)];
        case 'getPatient':
            return ['success' => true, 'patient' => patient(text($params, 'patientId'), 'Synthetic')];
        case 'searchPatients':
            $name = text($params, 'lastName');
            return tebra_answer('Patients', [patient('90001', $name), patient('90002', $name)]);
        case 'getProviders':
            return tebra_answer('Providers', [
                ['ID' => '80001', 'FullName' => 'Sample Provider, MD', 'Active' => true],
                ['ID' => '80002', 'FullName' => 'Example Provider, NP', 'Active' => true],
            ]);
        case 'testConnection':
            return ['success' => true, 'message' => 'Connection successful', 'stand_in' => true];
        case 'health':
        case 'getHealthStatus':
            return ['status' => 'healthy', 'stand_in' => true];
        case 'createAppointment':
            $data = record($params, 'appointmentData');
            $id = sprintf('SYN-%08x', crc32($_SERVER['HTTP_IDEMPOTENCY_KEY'] ?? ''));
            return ['success' => true, 'appointmentId' => $id, 'appointment' => $data];
        case 'updateAppointment':
            $data = record($params, 'appointmentData');
            return ['success' => true, 'updated' => true, 'appointment' => $data];
    }
    throw new Invalid('Unknown action: ' . $action);
}

function tebra_answer(string $name, array $list): array
{
    return [
        'ErrorResponse' => ['ErrorMessage' => null, 'IsError' => false],
        'SecurityResponse' => ['Authenticated' => true, 'Authorized' => true, 'SecurityResult' => 'Success'],
        $name => $list,
    ];
}

function patient(string $id, string $lastName): array
{
    return [
        'ID' => $id, 'FirstName' => 'Testa', 'LastName' => $lastName, 'PatientFullName' => 'Testa ' . $lastName,
        'DateOfBirth' => '1900-01-01', 'PhoneNumber' => '555-0100', 'EmailAddress' => 'testa@example.invalid',
    ];
}

function appointments(string $from, string $to): array
{
    $list = [];
    foreach (array_unique([$from, $to]) as $day) {
        foreach (['Synthetic', 'Example', 'Placeholder'] as $i => $name) {
            $list[] = [
                'ID' => sprintf('SYN-%s-%d', $day, $i + 1),
                'PatientFullName' => 'Testa ' . $name,
                'Status' => 'Scheduled',
                'StartTime' => sprintf('%sT%02d:00:00Z', $day, 9 + $i),
                'EndTime' => sprintf('%sT%02d:30:00Z', $day, 9 + $i),
                'ProviderName' => 'Sample Provider, MD',
            ];
        }
    }
    return $list;
}

function day(array $params, string $name, ?string $fallback): string
{
    if (!isset($params[$name]) && $fallback !== null) {
        return $fallback;
    }
    $text = text($params, $name);
    $date = DateTimeImmutable::createFromFormat('!Y-m-d', $text);
    if ($date === false || $date->format('Y-m-d') !== $text) {
        throw new Invalid($name . ' must be a date in Y-m-d format');
    }
    return $text;
}

function text(array $params, string $name): string
{
    $value = $params[$name] ?? '';
    if (is_int($value) || is_float($value)) {
        return (string) $value;
    }
    if (!is_string($value) || $value === '') {
        throw new Invalid($name . ' is required');
    }
    return $value;
}

function record(array $params, string $name): array
{
    $value = $params[$name] ?? null;
    if (!is_array($value) || ($value !== [] && array_is_list($value))) {
        throw new Invalid($name . ' is required and must be an object');
    }
    return $value;
}

/** Replies in the way that the behaviour says. */
function reply(array $do, ?array $ordinary): void
{
    if (ctype_digit($do['word'])) {
        status((int) $do['word']);
        return;
    }
    switch ($do['word']) {
        case 'ok':
            echo json_encode($ordinary);
            return;
        case 'hang':
            sleep(10);
            break_off('');
            return;
        case 'drop':
            break_off('');
            return;
        case 'fail':
            echo json_encode(hidden_failure((int) $do['arg']));
            return;
        case 'throttle':
            echo json_encode(['success' => true, 'data' => ['success' => false, 'message' => THROTTLE_TEXT]]);
            return;
        case 'throttle-503':
            fault(THROTTLE_TEXT);
            return;
        case 'iserror':
        case 'denied':
            echo json_encode(['success' => true, 'data' => tebra_failure($do['word'])]);
            return;
        case 'text':
            echo "<br />\n<b>Fatal error</b>: made up";
            return;
        case 'empty':
            return;
        case 'half':
            $text = json_encode($ordinary);
            break_off(substr($text, 0, intdiv(strlen($text), 2)));
            return;
        case 'trickle':
            trickle(json_encode($ordinary), microseconds($do['arg']));
            return;
        case 'huge':
            huge((int) $do['arg']);
            return;
    }
    throw new Invalid('behaviour "' . $do['word'] . '" is not known');
}

/** Promises more than it sends; the server then closes the connection. */
function break_off(string $text): void
{
    header('Content-Length: ' . (strlen($text) + 1000));
    echo $text;
}

function trickle(string $text, int $every): void
{
    header('Content-Length: ' . strlen($text));
    foreach (str_split($text) as $byte) {
        echo $byte;
        flush();
        usleep($every);
    }
}

function huge(int $size): void
{
    $head = '{"success":true,"data":"';
    $tail = '"}';
    echo $head;
    for ($left = $size - strlen($head . $tail); $left > 0; $left -= 65536) {
        echo str_repeat('x', min($left, 65536));
    }
    echo $tail;
}

function hidden_failure(int $depth): array
{
    $body = ['success' => false, 'message' => 'A made-up failure', 'error' => 'A made-up failure'];
    for ($i = 0; $i < $depth; $i++) {
        $body = ['success' => true, 'data' => $body];
    }
    return $body;
}

function tebra_failure(string $word): array
{
    $answer = tebra_answer('Patients', []);
    if ($word === 'iserror') {
        $answer['ErrorResponse'] = ['ErrorMessage' => 'A made-up failure', 'IsError' => true];
        return $answer;
    }
    $answer['SecurityResponse'] = ['Authenticated' => true, 'Authorized' => false, 'SecurityResult' => 'Not authorized'];
    return $answer;
}

function status(int $code): void
{
    switch ($code) {
        case 400:
            fail($code, 'validation_error', 'A made-up validation error');
            return;
        case 401:
        case 403:
            fail($code, 'authentication_error', 'Unauthorized');
            return;
        case 405:
            fail($code, 'method_error', 'Method not allowed');
            return;
        case 500:
            fail($code, 'internal_error', 'An internal server error occurred');
            return;
        case 503:
            fault('A made-up fault');
            return;
    }
    http_response_code($code);
    if ($code < 400) {
        header('Location: /elsewhere', true, $code);
    }
    echo 'Status ', $code;
}

function fault(string $text): void
{
    fail(503, 'soap_fault', 'SOAP error: ' . $text, ['fault_code' => 's:Server', 'fault_string' => $text]);
}

function fail(int $status, string $type, string $error, array $more = []): void
{
    http_response_code($status);
    header('Content-Type: application/json');
    echo json_encode([
        'success' => false, 'error' => $error, 'type' => $type, 'timestamp' => gmdate('Y-m-d\TH:i:s\Z'),
        'correlation_id' => $_SERVER['HTTP_X_CORRELATION_ID'] ?? '',
    ] + $more);
}

function journal(string $action, bool $executed): void
{
    $file = getenv('PHPTEST_JOURNAL');
    if ($file === false || $file === '') {
        return;
    }
    $line = json_encode([
        'time' => (new DateTimeImmutable('now', new DateTimeZone('UTC')))->format('Y-m-d\TH:i:s.u\Z'),
        'action' => $action,
        'requestId' => $_SERVER['HTTP_IDEMPOTENCY_KEY'] ?? '',
        'correlationId' => $_SERVER['HTTP_X_CORRELATION_ID'] ?? '',
        'write' => in_array($action, WRITES, true),
        'executed' => $executed,
    ]);
    file_put_contents($file, $line . "\n", FILE_APPEND | LOCK_EX);
}
